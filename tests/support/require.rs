//! What a test needs from the machine. Without it the test says that it was skipped and why; where nothing may be
//! skipped (`MESH_TEST_REQUIRE=all`, as in CI), it fails.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    thread,
};

/// A program of a Debian package.
pub(crate) fn program(name: &str, package: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Daemons are in `sbin`, which is not on everybody's path.
    let places = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = places.map(|place| place.join(name)).find(|candidate| candidate.is_file());
    found.or_else(|| skip(&format!("{name} is not installed (Debian package {package})")))
}

/// The Python of `target/venv`, which has the clients of `tests/support/requirements.txt`.
pub(crate) fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    if python.is_file() {
        return Some(python);
    }
    skip("no target/venv: python3 -m venv target/venv && target/venv/bin/pip install -r tests/support/requirements.txt")
}

/// The right to make network namespaces and redirect rules.
pub(crate) fn root() -> Option<()> {
    if rustix::process::geteuid().is_root() { Some(()) } else { skip("needs root, for network namespaces") }
}

fn skip<T>(reason: &str) -> Option<T> {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    assert!(env::var_os("MESH_TEST_REQUIRE").is_none_or(|value| value != "all"), "may not be skipped: {reason}");
    // Straight to the descriptor: what goes through the macros is kept back for tests that fail.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
    None
}
