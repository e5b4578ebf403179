//! `mesh proxy`: the data plane, beside one workload.

use std::process::ExitCode;

use anyhow::Context;
use tokio::{runtime, task::LocalSet};

use crate::{
    proxy::{self, Proxy, config::Config},
    rt::limits,
    telemetry::log,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    proxy: proxy::Args,
    /// What to log: a level, or directives.
    #[arg(long, env = "MESH_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
    /// Log a JSON object a line.
    #[arg(long, env = "MESH_LOG_JSON")]
    log_json: bool,
}

/// A connection through the proxy takes two descriptors.
fn raise_open_files(max_connections: usize) {
    if let Some(limit) = limits::raise_open_files()
        && limit < 2 * max_connections as u64
    {
        tracing::info!(limit, max_connections, "the limit on open files is reached before the limit on connections");
    }
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::new(args.proxy)?;
    if config.exit_with_parent {
        crate::rt::parent::end_with().context("asking to end with the parent process")?;
    }
    let log = log::init(&args.log, args.log_json)?;
    raise_open_files(config.max_connections);
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(async {
        let proxy = Proxy::build(config, log).await?;
        proxy.run().await
    }))?;
    Ok(ExitCode::SUCCESS)
}
