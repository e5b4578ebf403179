//! Child processes that never outlive this one, however it ends.
//!
//! The kernel signals a child when the *thread* that started it dies (`PR_SET_PDEATHSIG`), so all are started from the
//! main thread. The child has to ask for it itself: our own roles by their flag `--exit-with-parent`, anything else is
//! started through `mesh exec-with-parent`.

use std::{
    convert::Infallible,
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// Where a child's stdout and stderr go.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    /// Where ours go; the child stays in the terminal's foreground and gets Ctrl-C itself.
    Inherit,
    /// Appended to a file in this directory, named after the pod and the part; cut off from the terminal.
    Files(PathBuf),
}

/// The parts of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Proxy,
    App,
    Controller,
}

impl Output {
    pub(crate) fn log(&self, name: &str, part: Part) -> Option<PathBuf> {
        let Self::Files(dir) = self else { return None };
        Some(dir.join(match part {
            Part::Proxy => format!("{name}.proxy.log"),
            Part::App => format!("{name}.log"),
            Part::Controller => "controller.log".to_owned(),
        }))
    }

    /// The end of a part's log, a line each after a line's end; nothing where a terminal has shown it already.
    pub(crate) fn last_words(&self, name: &str, part: Part) -> String {
        let log = self.log(name, part).and_then(|path| fs::read(path).ok()).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.iter().skip(lines.len().saturating_sub(LAST_WORDS)).map(|line| format!("\n  {line}")).collect()
    }

    fn apply(&self, command: &mut Command, name: &str, part: Part) -> io::Result<()> {
        // Ctrl-C in a terminal goes to the whole foreground group; a proxy must outlive the requests it carries.
        if part != Part::App || matches!(self, Self::Files(_)) {
            command.process_group(0).stdin(Stdio::null());
        }
        if let Some(path) = self.log(name, part) {
            let file: File = OpenOptions::new().create(true).append(true).open(path)?;
            command.stdout(file.try_clone()?).stderr(file);
        } else if part != Part::App {
            // stdout is the application's alone.
            command.stdout(Stdio::null());
        }
        Ok(())
    }
}

/// One of our own roles. `args` have the flag that ties it to this process.
pub(crate) fn role(args: &[OsString], output: &Output, name: &str, part: Part) -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(args).kill_on_drop(true);
    if matches!(output, Output::Inherit) && env::var_os(LOG).is_none() {
        // What the application says is what the person wants to read.
        command.env(LOG, "warn");
    }
    output.apply(&mut command, name, part)?;
    Ok(command)
}

/// Somebody else's program, tied to this process by way of `mesh exec-with-parent`.
pub(crate) fn foreign(program: &[OsString], output: &Output, name: &str) -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(foreign_args(getpid(), program)).kill_on_drop(true);
    output.apply(&mut command, name, Part::App)?;
    Ok(command)
}

fn foreign_args(parent: Pid, program: &[OsString]) -> Vec<OsString> {
    let own = ["exec-with-parent".to_owned(), "--parent".to_owned(), parent.as_raw_pid().to_string(), "--".to_owned()];
    own.into_iter().map(OsString::from).chain(program.iter().cloned()).collect()
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("`mesh run` ended before it could start {0}")]
    ParentGone(String),
    #[error("cannot tie the process to `mesh run`")]
    DeathSignal(#[source] io::Error),
    #[error("cannot start {program}")]
    Exec { program: String, source: io::Error },
}

/// Becomes `program`, to be killed when the process `parent` ends. The death signal survives the exec.
///
/// KILL and not TERM: a program that ignores TERM would stay behind, holding a port that nobody watches over any more.
pub(crate) fn exec_with_parent(parent: i32, program: &[OsString]) -> Result<Infallible, Error> {
    let name = || program.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| Error::DeathSignal(error.into()))?;
    // The parent may have died before the line above: then the signal never comes.
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        return Err(Error::ParentGone(name()));
    }
    let mut command = std::process::Command::new(program.first().map_or_else(|| Path::new(""), Path::new));
    command.args(program.iter().skip(1)).env_remove(TOKEN);
    Err(Error::Exec { program: name(), source: command.exec() })
}

/// Asks a child to end, waits, and ends it at the deadline.
pub(crate) async fn stop(child: &mut Child, deadline: Duration) -> io::Result<ExitStatus> {
    signal(child, Signal::TERM);
    if let Ok(status) = timeout(deadline, child.wait()).await {
        return status;
    }
    child.start_kill()?;
    child.wait().await
}

/// Sends a signal to a child that has not been reaped yet; one that is gone needs none.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, signal);
    }
}

/// A shell's rule: the code itself, or 128 and the number of the signal.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// How an end is told to a person.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal().and_then(Signal::from_named_raw)) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("{signal:?}"),
        (None, None) => status.to_string(),
    }
}

/// Carries the join token: command lines can be read by every user, environments only by the own.
pub(crate) const TOKEN: &str = "MESH_JOIN_TOKEN";
/// Lines of a log to show when a part does not start.
const LAST_WORDS: usize = 5;
/// What a role logs.
const LOG: &str = "MESH_LOG";
/// How long a part may take to end by itself. The proxies' own drain deadline is shorter.
pub(crate) const STOP_DEADLINE: Duration = Duration::from_secs(35);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_shell() {
        for (raw, code) in [(0, 0), (0x0100, 1), (0x2a00, 42), (15, 143), (9, 137), (2, 130)] {
            assert_eq!(exit_code(ExitStatus::from_raw(raw)), code, "{raw:#x}");
        }
    }

    #[test]
    fn a_foreign_program_is_started_by_way_of_its_parents_name() {
        let parent = Pid::from_raw(42).expect("42 is a process id");
        let args = foreign_args(parent, &["./web".into(), "--verbose".into()]);
        assert_eq!(args, ["exec-with-parent", "--parent", "42", "--", "./web", "--verbose"]);
    }

    #[test]
    fn a_parent_that_is_gone_starts_nothing() {
        // No process has this parent.
        assert!(matches!(exec_with_parent(0, &["true".into()]), Err(Error::ParentGone(_))));
        let _ = set_parent_process_death_signal(None);
    }

    #[tokio::test]
    async fn a_child_that_ignores_the_request_is_ended_at_the_deadline() {
        let mut child = Command::new("sh").args(["-c", "trap '' TERM; while :; do sleep 0.05; done"]).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let status = stop(&mut child, Duration::from_millis(100)).await.unwrap();
        assert_eq!(exit_code(status), 137);
    }
}
