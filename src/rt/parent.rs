//! Ending with the parent process, so that a role that was started for another process never outlives it (Linux).

use std::io;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Asks the kernel for SIGTERM when the parent's thread that started this process ends. A parent that is gone already is
/// noticed here: what init adopted has none to end with.
pub(crate) fn end_with() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    match getppid() {
        Some(parent) if !parent.is_init() => Ok(()),
        _ => Err(io::Error::other("the parent process has ended")),
    }
}
