//! A registry of local meshes of its own for `mesh run` and `mesh demo`, and what their runs have left in it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use tempfile::TempDir;
use tokio::process::Command;

use super::{condition::eventually, process::Process};

pub(crate) struct Home {
    dir: TempDir,
    logs: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        // Short names: the paths of sockets are bounded by the system.
        let private = Permissions::from_mode(0o700);
        let builder = || tempfile::Builder::new().prefix("mh-").permissions(private.clone()).tempdir_in("/tmp");
        let dir = || builder().expect("a directory");
        Self { dir: dir(), logs: dir() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `mesh` with these arguments, in this registry.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
        command.args(arguments).env("MESH_LOCAL_DIR", self.path()).env_remove("MESH_LOG");
        command
    }

    pub(crate) fn start(&self, name: &str, arguments: &[&str]) -> Process {
        Process::start(name, self.logs.path(), &mut self.command(arguments))
    }

    /// A demo that goes on until it is told to end, and whose shop is open.
    pub(crate) async fn demo(&self, name: &str, arguments: &[&str]) -> Process {
        let mut demo = self.start(name, &[&["demo", "--for", "10m", "--name", name], arguments].concat());
        eventually("the open shop", async || {
            demo.check();
            demo.output().contains("The shop is open").then_some(())
        })
        .await;
        demo
    }

    /// Runs to the end; stdout and stderr, and the exit code.
    pub(crate) async fn output(&self, arguments: &[&str]) -> (String, String, Option<i32>) {
        let output = self.command(arguments).output().await.expect("mesh can be started");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (text(output.stdout), text(output.stderr), output.status.code())
    }

    /// The processes that run in this registry: the variable is inherited by all of them.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let variable = format!("MESH_LOCAL_DIR={}", self.path().display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("Linux").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment.split(|byte| *byte == 0).any(|pair| pair == variable.as_bytes()) {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        found
    }

    /// The process whose command line has all of `words`.
    pub(crate) async fn process(&self, words: &[&str]) -> u32 {
        eventually(&format!("a process {words:?}"), async || {
            let all = self.processes();
            all.iter().find(|(_, line)| words.iter().all(|word| line.contains(word))).map(|(pid, _)| *pid)
        })
        .await
    }

    /// What is in the registry: names of meshes.
    pub(crate) fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).expect("a directory").flatten();
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    }

    /// Waits until no process and no mesh is left.
    pub(crate) async fn is_clean(&self) {
        let what = "the end of all processes and of the directory";
        eventually(what, async || (self.processes().is_empty() && self.entries().is_empty()).then_some(())).await;
    }
}
