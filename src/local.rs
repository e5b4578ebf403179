//! The mesh without Kubernetes: a directory stands for the cluster, `mesh run` puts processes into it.
//!
//! Composition root of `mesh run` and `mesh demo`; `registry` is what every command with `--local` asks.

use std::{process::ExitStatus, rc::Rc};

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
pub(crate) mod sidecar;
mod slice;

use instance::Instance;
use layout::Layout;
pub(crate) use registry::{Error, Mesh};

/// Where lines for the person go: stderr, or above a progress bar.
pub(crate) type Say = Rc<dyn Fn(&str)>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Layout(#[from] layout::Error),
    #[error("the proxy of {pod}")]
    Sidecar { pod: String, source: sidecar::Error },
    #[error("cannot run {program}")]
    App { program: String, source: std::io::Error },
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
    /// Set once the instance is published: its proxy is ready and its application accepts.
    pub(crate) published: watch::Sender<bool>,
    pub(crate) output: child::Output,
}

/// Runs an application with its sidecar in `mesh` until it ends, or until `stop`; its status is what the application
/// ended with. A proxy that dies is started again; the instance is published only while both sides of it are up.
pub(crate) async fn run(mesh: &Mesh, run: Run, say: Say, stop: drain::Watch) -> Result<ExitStatus, RunError> {
    let Run { instance, on_exit, signals, published, output } = run;
    let layout = Layout::new(&mesh.dir);
    let placed = instance.place(&layout)?;
    let (up, proxy) = watch::channel(false);
    let (serving, app) = watch::channel(false);
    let (stop_sidecar, sidecar_stop) = drain::channel();

    let sidecar = sidecar::Sidecar { placed: &placed, layout: &layout, output: &output, say: &say };
    let mut sidecar = Box::pin(sidecar.run(up, sidecar_stop));
    let application = app::App { placed: &placed, on_exit, output: &output, say: &say };
    let application = application.run(proxy.clone(), serving, signals, stop);
    let publishing = slice::keep(&placed, &layout, proxy, app, published);

    let status = tokio::select! {
        // A sidecar ends by itself only when it could not be started at all.
        ended = &mut sidecar => {
            ended.map_err(|source| RunError::Sidecar { pod: placed.pod.clone(), source })?;
            return Err(RunError::Sidecar { pod: placed.pod.clone(), source: sidecar::Error::Stopped });
        }
        failed = publishing => match failed? {},
        status = application => status,
    };
    let removed = slice::remove(&placed, &layout);
    let (_, ended) = tokio::join!(stop_sidecar.drain(child::STOP_DEADLINE * 2), sidecar);
    if let Err(error) = ended {
        say(&format!("warning: the proxy of {}: {error}", placed.pod));
    }
    removed?;
    status
}
