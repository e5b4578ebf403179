//! The proxy of one instance, kept running: started with a join token, awaited, started again when it dies.

use std::{fs, io, path::Path, time::Duration};

use tokio::{process::Child, sync::watch, time};

use super::{
    Say, child,
    child::{Output, Part},
    instance::Placed,
    layout::{self, Layout},
    private,
};
use crate::rt::{backoff::Backoff, drain};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no join token from the controller")]
    Join(#[source] private::Error),
    #[error("the controller's answer holds no join token")]
    Token,
    #[error("cannot be started")]
    Spawn(#[source] io::Error),
    #[error("ended before it was ready ({0})")]
    Died(String),
    #[error("was not ready within {}s", READY_DEADLINE.as_secs())]
    NotReady(#[source] Box<private::Error>),
    #[error("has stopped")]
    Stopped,
    #[error(transparent)]
    Layout(#[from] layout::Error),
}

#[derive(Debug)]
enum Ended {
    Asked,
    Died(String),
}

pub(super) struct Sidecar<'a> {
    pub(super) placed: &'a Placed,
    pub(super) layout: &'a Layout,
    pub(super) output: &'a Output,
    pub(super) say: &'a Say,
}

impl Sidecar<'_> {
    /// Keeps the proxy running until `stop`; `up` says whether it is ready.
    ///
    /// # Errors
    /// Only that the first start failed: after that it is tried again for ever, and said each time.
    pub(super) async fn run(&self, up: watch::Sender<bool>, mut stop: drain::Watch) -> Result<(), Error> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let mut was_up = false;
        loop {
            let ended = self.once(&up, &mut stop).await;
            if up.send_replace(false) {
                was_up = true;
                backoff.reset();
            }
            let delay = backoff.next(&mut rand::rng());
            let why = match ended {
                Ok(Ended::Asked) => return Ok(()),
                Ok(Ended::Died(how)) => format!("ended ({how})"),
                Err(error) if !was_up => return Err(error),
                Err(error) => chain(&error),
            };
            (self.say)(&format!("warning: the proxy of {} {why}; starting it again", self.placed.pod));
            tokio::select! {
                () = time::sleep(delay) => {}
                () = stop.signalled() => return Ok(()),
            }
        }
    }

    async fn once(&self, up: &watch::Sender<bool>, stop: &mut drain::Watch) -> Result<Ended, Error> {
        let socket = self.layout.proxy_socket(&self.placed.pod)?;
        let mut child = tokio::select! {
            child = self.start(&socket) => child?,
            () = stop.signalled() => return Ok(Ended::Asked),
        };
        let ready = tokio::select! {
            ready = self.await_ready(&socket, &mut child) => ready,
            () = stop.signalled() => return self.end(child).await,
        };
        if let Err(error) = ready {
            let _ = child::stop(&mut child, Duration::from_secs(1)).await;
            return Err(error);
        }
        up.send_replace(true);
        tokio::select! {
            status = child.wait() => Ok(Ended::Died(status.map_or_else(|error| error.to_string(), child::describe))),
            () = stop.signalled() => self.end(child).await,
        }
    }

    async fn start(&self, socket: &Path) -> Result<Child, Error> {
        let token = match &self.placed.instance.token {
            Some(token) => token.clone(),
            None => self.join().await?,
        };
        if let Some(dir) = socket.parent() {
            fs::create_dir_all(dir).map_err(Error::Spawn)?;
        }
        // A proxy that was killed leaves its socket, at which nobody would answer.
        match fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::Spawn(error)),
            _ => {}
        }
        let args = self.placed.proxy_args(socket.as_os_str());
        let command = child::role(&args, self.output, &self.placed.pod, Part::Proxy);
        command.and_then(|mut command| command.env(child::TOKEN, token).spawn()).map_err(Error::Spawn)
    }

    async fn join(&self) -> Result<String, Error> {
        let instance = &self.placed.instance;
        let ask = serde_json::json!({ "namespace": instance.namespace, "service_account": instance.service_account });
        let answer = private::post(&self.layout.controller_socket(), "/v1/join", &ask).await.map_err(Error::Join)?;
        let answer: serde_json::Value = serde_json::from_slice(&answer).map_err(|_| Error::Token)?;
        answer["token"].as_str().map(str::to_owned).ok_or(Error::Token)
    }

    async fn await_ready(&self, socket: &Path, child: &mut Child) -> Result<(), Error> {
        let deadline = time::sleep(READY_DEADLINE);
        tokio::pin!(deadline);
        loop {
            let not_yet = match private::get(socket, "/ready").await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            tokio::select! {
                status = child.wait() => {
                    let how = status.map_or_else(|error| error.to_string(), child::describe);
                    return Err(Error::Died(how));
                }
                () = &mut deadline => return Err(Error::NotReady(Box::new(not_yet))),
                () = time::sleep(POLL) => {}
            }
        }
    }

    async fn end(&self, mut child: Child) -> Result<Ended, Error> {
        child::stop(&mut child, child::STOP_DEADLINE).await.map_err(Error::Spawn)?;
        Ok(Ended::Asked)
    }
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}

/// Generous, for a machine that starts a dozen of them at once.
const READY_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
