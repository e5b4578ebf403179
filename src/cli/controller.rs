//! `mesh controller`: the control plane of a local mesh.

use std::{pin::pin, process::ExitCode};

use anyhow::Context;
use tokio::{runtime, task::LocalSet};

use super::ui::Hinted;
use crate::{
    controller::{self, Controller},
    local::registry,
    rt::{limits, parent, signal},
    telemetry::log,
};

#[derive(Debug, clap::Args)]
#[command(about = "Run the control plane of a local mesh: a directory stands for the cluster")]
pub(super) struct Args {
    #[command(flatten)]
    controller: controller::Args,
    /// What to log: a level, or directives.
    #[arg(long, env = "MESH_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
    /// Log a JSON object a line.
    #[arg(long, env = "MESH_LOG_JSON")]
    log_json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.controller.ephemeral {
        parent::end_with().context("asking to end with the parent process")?;
    }
    log::init(&args.log, args.log_json)?;
    limits::raise_open_files();
    let name = registry::name_for(&std::path::absolute(&args.controller.source)?);
    let config = args.controller.config(name);
    crate::model::name::label(&config.name).context("--name")?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(async {
        let mut shutdown = pin!(signal::shutdown());
        // Polled first, so that a signal from now on is ours to handle: no start is left half done.
        let controller = tokio::select! {
            biased;
            _ = &mut shutdown => return Ok(()),
            built = Controller::build(config) => built?,
        };
        let registered = registry::register(controller.name(), controller.root());
        let registration = registered.map_err(|error| match error.hint() {
            Some(hint) => anyhow::Error::new(error).context(Hinted::new("registering the mesh", hint)),
            None => error.into(),
        })?;
        controller
            .run(async {
                match shutdown.await {
                    Ok(signal) => tracing::info!(signal, "shutting down"),
                    Err(error) => tracing::error!(%error, "signals cannot be received, shutting down"),
                }
            })
            .await?;
        drop(registration);
        anyhow::Ok(())
    }))?;
    Ok(ExitCode::SUCCESS)
}
