//! The application of one instance: started once its proxy is ready, told the signals, watched until it ends.

use std::{io, process::ExitStatus, time::Duration};

use futures_util::FutureExt;
use rustix::process::Signal;
use tokio::{
    net::TcpStream,
    process::Child,
    sync::{mpsc, watch},
    time,
};

use super::{
    RunError, Say, child,
    child::{Output, Part},
    instance::{Placed, loopback},
};
use crate::rt::{backoff::Backoff, drain};

/// What the end of the application means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnExit {
    /// The end of the instance.
    Leave,
    /// It is started again.
    Restart,
}

pub(super) struct App<'a> {
    pub(super) placed: &'a Placed,
    pub(super) on_exit: OnExit,
    pub(super) output: &'a Output,
    pub(super) say: &'a Say,
}

enum Event {
    Ended(io::Result<ExitStatus>),
    Signal(Signal),
    Accepts,
    Stop,
}

impl App<'_> {
    /// Runs the application once `proxy` is ready; `serving` says whether it accepts.
    pub(super) async fn run(
        &self,
        mut proxy: watch::Receiver<bool>,
        serving: watch::Sender<bool>,
        mut signals: mpsc::Receiver<Signal>,
        mut stop: drain::Watch,
    ) -> Result<ExitStatus, RunError> {
        tokio::select! {
            // The sender lives as long as the sidecar, whose end is the end of this too.
            _ = proxy.wait_for(|ready| *ready) => {}
            () = stop.signalled() => return Ok(ExitStatus::default()),
            Some(signal) = signals.recv() => return Ok(ended_by(signal)),
        }
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let mut was_up = false;
        loop {
            let started = crate::rt::clock::now();
            let status = self.once(&serving, &mut signals, &mut stop).await?;
            was_up |= serving.send_replace(false);
            if self.on_exit == OnExit::Leave || stop.signalled().now_or_never().is_some() {
                return Ok(status);
            }
            if !was_up {
                let said = self.output.last_words(&self.placed.pod, Part::App);
                return Err(RunError::Died { pod: self.placed.pod.clone(), how: child::describe(status), said });
            }
            if started.elapsed() > Duration::from_secs(10) {
                backoff.reset();
            }
            let how = child::describe(status);
            (self.say)(&format!("warning: {} ended ({how}); starting it again", self.placed.pod));
            tokio::select! {
                () = time::sleep(backoff.next(&mut rand::rng())) => {}
                () = stop.signalled() => return Ok(status),
            }
        }
    }

    async fn once(
        &self,
        serving: &watch::Sender<bool>,
        signals: &mut mpsc::Receiver<Signal>,
        stop: &mut drain::Watch,
    ) -> Result<ExitStatus, RunError> {
        let mut child = self.start()?;
        let accepts = self.accepts();
        tokio::pin!(accepts);
        let mut awaited = true;
        loop {
            let event = tokio::select! {
                status = child.wait() => Event::Ended(status),
                Some(signal) = signals.recv() => Event::Signal(signal),
                () = &mut accepts, if awaited => Event::Accepts,
                () = stop.signalled() => Event::Stop,
            };
            let failed = |source| RunError::Child { what: "cannot wait for the application", source };
            match event {
                Event::Ended(status) => return status.map_err(failed),
                Event::Accepts => {
                    awaited = false;
                    serving.send_replace(true);
                }
                Event::Signal(signal) => {
                    // Withdrawn first: nobody should still choose an instance that is about to leave.
                    if signal == Signal::TERM {
                        awaited = false;
                        serving.send_replace(false);
                        tokio::task::yield_now().await;
                    }
                    child::signal(&child, signal);
                }
                Event::Stop => {
                    serving.send_replace(false);
                    return child::stop(&mut child, APP_DEADLINE).await.map_err(failed);
                }
            }
        }
    }

    fn start(&self) -> Result<Child, RunError> {
        drop(self.placed.reserved.app.take());
        let program = &self.placed.instance.command;
        let name = || program.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let command = child::foreign(program, self.output, &self.placed.pod);
        let start = |mut command: tokio::process::Command| {
            command.envs(self.placed.environment()).env_remove(child::TOKEN).spawn()
        };
        command.and_then(start).map_err(|source| RunError::App { program: name(), source })
    }

    /// Resolves once somebody accepts at the application's port; at once where it has none.
    async fn accepts(&self) {
        let Some(inbound) = self.placed.inbound else { return };
        let address = loopback(inbound.app_port);
        let late = time::Instant::now() + ACCEPT_DEADLINE;
        let mut warned = false;
        let mut poll = Duration::from_millis(10);
        while TcpStream::connect(address).await.is_err() {
            if !warned && time::Instant::now() > late {
                warned = true;
                let seconds = ACCEPT_DEADLINE.as_secs();
                let pod = &self.placed.pod;
                (self.say)(&format!(
                    "warning: {pod} does not accept connections on {address} after {seconds}s; nobody is sent there until it does"
                ));
            }
            time::sleep(poll).await;
            poll = (poll * 2).min(Duration::from_millis(200));
        }
    }
}

/// How an application that was never started would have ended.
fn ended_by(signal: Signal) -> ExitStatus {
    std::os::unix::process::ExitStatusExt::from_raw(signal.as_raw())
}

const ACCEPT_DEADLINE: Duration = Duration::from_secs(30);
/// For an application that is stopped because everything is; `mesh run` leaves the time to the application.
const APP_DEADLINE: Duration = Duration::from_secs(5);
