//! A child process of a test: its output kept for the moment it is needed, ended by its process id when dropped.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::condition;

pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `dir/NAME.log`.
    pub(crate) fn start(name: &str, dir: &Path, command: &mut Command) -> Self {
        let log = dir.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).expect("a log file");
        let errors = output.try_clone().expect("a second handle");
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).kill_on_drop(true).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { name: name.to_owned(), child, log }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("not yet waited for")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.id()).expect("a process id")).expect("not 0");
        kill_process(pid, signal).expect("it is ours and not yet waited for");
    }

    /// Waits until it ends by itself or by a signal sent before.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        condition::within(&what, condition::DEADLINE, self.child.wait()).await.expect("a child of ours")
    }

    /// Fails, with what it said, when it has ended.
    pub(crate) fn check(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child of ours") {
            panic!("{} ended ({status}):\n{}", self.name, self.output());
        }
    }

    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "--- {}\n{}", self.name, self.output());
        }
    }
}
