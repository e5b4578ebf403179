//! `mesh exec-with-parent` (hidden): becomes another program, which ends when the process that asked for it does.

use std::{ffi::OsString, process::ExitCode};

use crate::local::child;

#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(super) struct Args {
    /// The process to end with.
    #[arg(long)]
    parent: i32,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match child::exec_with_parent(args.parent, &args.command)? {}
}
