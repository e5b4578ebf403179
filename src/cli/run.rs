//! `mesh run`: one process of yours, in a local mesh.

use std::{ffi::OsString, process::ExitCode, rc::Rc};

use anyhow::Context;
use rustix::process::Signal;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::LocalSet,
};

use super::ui;
use crate::{
    local::{
        self, Run, app, child,
        instance::{Instance, Port, Upstream},
        registry,
    },
    rt::drain,
};

#[derive(Debug, clap::Args)]
#[command(
    about = "Run a process in a local mesh, with a proxy beside it",
    after_help = "The process finds its port as PORT, and each upstream as NAME_ADDR=127.0.0.1:PORT.\n\n\
                  Example:\n  mesh run --name web --port 8080 --upstream orders=7001 -- ./web --verbose"
)]
pub(super) struct Args {
    /// What it is called: the workload, the Service and the identity, unless said otherwise.
    #[arg(long)]
    name: String,
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The Service it belongs to [default: NAME].
    #[arg(long)]
    service: Option<String>,
    /// The Service's port, where no Service object says it [default: the port of --port, or 80].
    #[arg(long)]
    service_port: Option<u16>,
    /// Whose identity it gets [default: NAME].
    #[arg(long)]
    service_account: Option<String>,
    /// KIND/NAME [default: deploy/NAME].
    #[arg(long)]
    workload: Option<String>,
    /// Where the process listens, PORT[/http|http2|grpc|opaque|tls]; 0 chooses a free one. Without it the process only
    /// calls others.
    #[arg(long)]
    port: Option<Port>,
    /// A Service it calls and the local port to call it at, [NAMESPACE/]SERVICE[:PORT]=LOCAL-PORT; 0 chooses a free one.
    #[arg(long = "upstream", value_name = "SERVICE=PORT")]
    upstreams: Vec<Upstream>,
    /// Which local mesh: its name, or its directory (with a `/`) [default: the only one running].
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true)]
    local: Option<Option<String>>,
    /// A join token made elsewhere; without one the mesh's controller is asked.
    #[arg(long, env = "MESH_JOIN_TOKEN", hide_env_values = true)]
    join: Option<String>,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

impl Args {
    fn instance(self) -> Instance {
        let named = Instance::new(&self.name, &self.namespace);
        Instance {
            service: self.service.unwrap_or(named.service),
            service_account: self.service_account.unwrap_or(named.service_account),
            workload: self.workload.unwrap_or(named.workload),
            port: self.port,
            service_port: self.service_port,
            upstreams: self.upstreams,
            token: self.join,
            command: self.command,
            ..Instance::new(&self.name, &self.namespace)
        }
    }
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mesh = registry::find(args.local.clone().flatten().as_deref()).map_err(ui::local)?;
    let instance = args.instance();
    instance.check()?;
    // Children are tied to the thread that starts them, so everything runs on this one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let status = LocalSet::new().block_on(&runtime, async {
        let (pass, signals) = mpsc::channel(16);
        let (published, _) = watch::channel(None);
        let (on_exit, output, patience) = (app::OnExit::Leave, child::Output::Inherit, child::STOP_DEADLINE);
        let run = Run { instance, on_exit, signals, published, output, patience };
        // Never signalled: it is the process that ends the run.
        let (_stop, stop) = drain::channel();
        tokio::select! {
            status = local::run(&mesh, run, Rc::new(ui::report), stop) => status.map_err(anyhow::Error::from),
            failed = pass_on(pass) => Err(failed.err().unwrap_or_else(|| anyhow::anyhow!("no more signals"))),
        }
    })?;
    Ok(ExitCode::from(child::exit_code(status)))
}

/// Sends on what this process is told. A terminal tells its whole foreground group, the process included: what it
/// sends must not arrive twice.
async fn pass_on(to: mpsc::Sender<Signal>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (mut user1, mut user2) = (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
    loop {
        let (signal, from_terminal) = tokio::select! {
            _ = terminate.recv() => (Signal::TERM, false),
            _ = interrupt.recv() => (Signal::INT, is_foreground()),
            _ = hangup.recv() => (Signal::HUP, is_foreground()),
            _ = user1.recv() => (Signal::USR1, false),
            _ = user2.recv() => (Signal::USR2, false),
        };
        if !from_terminal && to.send(signal).await.is_err() {
            // The application has ended; what is left is the proxy's drain.
            std::future::pending::<()>().await;
        }
    }
}

fn is_foreground() -> bool {
    rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}
