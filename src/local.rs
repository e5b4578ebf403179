//! The mesh without Kubernetes: a directory stands for the cluster, `mesh run` puts processes into it.
//!
//! Composition root of `mesh run` and `mesh demo`; `registry` is what every command with `--local` asks.

use std::{net::SocketAddr, process::ExitStatus, rc::Rc, time::Duration};

use tokio::sync::{mpsc, watch};

use crate::rt::drain;

pub(crate) mod app;
pub(crate) mod child;
pub(crate) mod demo;
pub(crate) mod instance;
pub(crate) mod layout;
mod ports;
mod private;
pub(crate) mod registry;
pub(crate) mod role;
mod slice;

use instance::Instance;
use layout::Layout;
pub(crate) use registry::{Error, Mesh};
use role::Role;

/// Where lines for the person go: stderr, or above a progress bar.
pub(crate) type Say = Rc<dyn Fn(&str)>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Layout(#[from] layout::Error),
    #[error("{name}")]
    Role { name: String, source: role::Error },
    #[error("cannot run {program}")]
    App { program: String, source: std::io::Error },
    #[error("{pod} ended before it was up ({how}){said}")]
    Died { pod: String, how: String, said: String },
    #[error(transparent)]
    Slice(#[from] slice::Error),
    #[error("{what}")]
    Child { what: &'static str, source: std::io::Error },
}

/// How one instance is run; see [`run`].
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) instance: Instance,
    pub(crate) on_exit: app::OnExit,
    /// Signals to pass on to the application.
    pub(crate) signals: mpsc::Receiver<rustix::process::Signal>,
    /// Says where the instance can be reached while it is published: its proxy is ready and its application accepts.
    pub(crate) published: watch::Sender<Option<Published>>,
    pub(crate) output: child::Output,
    /// How long the proxy may take to drain.
    pub(crate) patience: Duration,
}

/// An instance that the mesh knows of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) pod: String,
    /// The proxy's listener in front of the application.
    pub(crate) inbound: Option<SocketAddr>,
}

/// Runs an application with its sidecar in `mesh` until it ends, or until `stop`; its status is what the application
/// ended with. A proxy that dies is started again; the instance is published only while both sides of it are up.
pub(crate) async fn run(mesh: &Mesh, run: Run, say: Say, stop: drain::Watch) -> Result<ExitStatus, RunError> {
    let Run { instance, on_exit, signals, published, output, patience } = run;
    let layout = Layout::new(&mesh.dir);
    let placed = instance.place(&layout)?;
    let (up, proxy) = watch::channel(false);
    let (serving, app) = watch::channel(false);
    let (stop_sidecar, sidecar_stop) = drain::channel();

    let sidecar = Role::proxy(&placed, &layout, &output, patience, Rc::clone(&say))?;
    let failed = |source| RunError::Role { name: sidecar.name.clone(), source };
    let mut running = Box::pin(sidecar.run(up, sidecar_stop));
    let application = app::App { placed: &placed, on_exit, output: &output, say: &say };
    let application = application.run(proxy.clone(), serving, signals, stop);
    let publishing = slice::keep(&placed, &layout, proxy, app, published);

    let status = tokio::select! {
        // A sidecar ends by itself only when it could not be started at all.
        ended = &mut running => return Err(failed(ended.err().unwrap_or(role::Error::Stopped))),
        broken = publishing => match broken? {},
        status = application => status,
    };
    let removed = slice::remove(&placed, &layout);
    let (_, ended) = tokio::join!(stop_sidecar.drain(patience * 2), running);
    ended.map_err(failed)?;
    removed?;
    status
}
