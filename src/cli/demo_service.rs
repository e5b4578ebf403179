//! `mesh demo-service` (hidden): one of the services of `mesh demo`.

use std::process::ExitCode;

use anyhow::Context;
use tokio::task::LocalSet;

use crate::local::demo::service;
pub(super) use crate::local::demo::service::Args;

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    LocalSet::new().block_on(&runtime, service::run(args))?;
    Ok(ExitCode::SUCCESS)
}
