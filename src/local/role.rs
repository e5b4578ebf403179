//! A part of our own beside the application, a proxy or the controller, kept running: started, awaited until it says
//! that it is ready, started again when it dies.

use std::{ffi::OsString, fs, io, path::PathBuf, time::Duration};

use tokio::{process::Child, sync::watch, time};

use super::{
    Say, child,
    child::{Output, Part},
    instance::Placed,
    layout::{self, Layout},
    private,
};
use crate::{
    api::private::{JoinAnswer, JoinRequest},
    rt::{backoff::Backoff, drain},
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("got no join token from the controller")]
    Join(#[source] private::Error),
    #[error("got an answer from the controller that holds no join token")]
    Token(#[source] serde_json::Error),
    #[error("cannot be started")]
    Spawn(#[source] io::Error),
    #[error("ended before it was ready ({how}){said}")]
    Died { how: String, said: String },
    #[error("was not ready within {}s", READY_DEADLINE.as_secs())]
    NotReady(#[source] private::Error),
    #[error("stopped")]
    Stopped,
}

#[derive(Debug)]
enum Ended {
    Asked,
    Died(String),
}

/// How a role gets what it needs at each start.
#[derive(Debug)]
enum Credentials {
    None,
    /// Made elsewhere, the same for every start.
    Token(String),
    /// Asked of the controller at each start: tokens expire.
    Join {
        controller: PathBuf,
        request: JoinRequest,
    },
}

pub(crate) struct Role {
    /// As in "NAME ended": `the proxy of web-1a2b3`.
    pub(crate) name: String,
    args: Vec<OsString>,
    socket: PathBuf,
    credentials: Credentials,
    output: Output,
    /// What its log is called after, and which part it is.
    log: (String, Part),
    /// How long it may take to end once asked.
    patience: Duration,
    say: Say,
}

impl Role {
    pub(super) fn proxy(
        placed: &Placed,
        layout: &Layout,
        output: &Output,
        patience: Duration,
        say: Say,
    ) -> Result<Self, layout::Error> {
        let instance = &placed.instance;
        let socket = layout.proxy_socket(&placed.pod)?;
        let request =
            JoinRequest { namespace: instance.namespace.clone(), service_account: instance.service_account.clone() };
        let credentials = match &instance.token {
            Some(token) => Credentials::Token(token.clone()),
            None => Credentials::Join { controller: layout.controller_socket(), request },
        };
        Ok(Self {
            name: format!("the proxy of {}", placed.pod),
            args: placed.proxy_args(&socket, &layout.controller_json()),
            socket,
            credentials,
            output: output.clone(),
            log: (placed.pod.clone(), Part::Proxy),
            patience,
            say,
        })
    }

    /// The controller of a mesh that is made for one run: it removes the directory when it ends.
    pub(super) fn ephemeral_controller(
        name: &str,
        layout: &Layout,
        output: &Output,
        patience: Duration,
        say: Say,
    ) -> Self {
        let source = layout.dir.as_os_str().to_owned();
        let args = ["controller".into(), "--source".into(), source, "--name".into(), name.into(), "--ephemeral".into()];
        Self {
            name: "the controller".to_owned(),
            args: args.into(),
            socket: layout.controller_socket(),
            credentials: Credentials::None,
            output: output.clone(),
            log: (name.to_owned(), Part::Controller),
            patience,
            say,
        }
    }

    /// Keeps it running until `stop`; `up` says whether it is ready.
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
            let why = match ended {
                Ok(Ended::Asked) => return Ok(()),
                Ok(Ended::Died(how)) => format!("ended ({how})"),
                Err(error) if !was_up => return Err(error),
                Err(error) => chain(&error),
            };
            (self.say)(&format!("warning: {} {why}; starting it again", self.name));
            tokio::select! {
                () = time::sleep(backoff.next(&mut rand::rng())) => {}
                () = stop.signalled() => return Ok(()),
            }
        }
    }

    async fn once(&self, up: &watch::Sender<bool>, stop: &mut drain::Watch) -> Result<Ended, Error> {
        let mut child = tokio::select! {
            child = self.start() => child?,
            () = stop.signalled() => return Ok(Ended::Asked),
        };
        let ready = tokio::select! {
            ready = self.await_ready(&mut child) => ready,
            () = stop.signalled() => return self.end(child).await,
        };
        if let Err(error) = ready {
            // The first error is the one to tell.
            let _ = child::stop(&mut child, Duration::from_secs(1)).await;
            return Err(error);
        }
        up.send_replace(true);
        tokio::select! {
            status = child.wait() => Ok(Ended::Died(status.map_or_else(|error| error.to_string(), child::describe))),
            () = stop.signalled() => self.end(child).await,
        }
    }

    async fn start(&self) -> Result<Child, Error> {
        let token = match &self.credentials {
            Credentials::None => None,
            Credentials::Token(token) => Some(token.clone()),
            Credentials::Join { controller, request } => {
                let body = serde_json::to_vec(request).map_err(Error::Token)?;
                let answer = private::post(controller, "/v1/join", body.into()).await.map_err(Error::Join)?;
                Some(serde_json::from_slice::<JoinAnswer>(&answer).map_err(Error::Token)?.token)
            }
        };
        if let Some(dir) = self.socket.parent() {
            fs::create_dir_all(dir).map_err(Error::Spawn)?;
        }
        // One that was killed leaves its socket, at which nobody would answer.
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::Spawn(error)),
            _ => {}
        }
        let (log, part) = &self.log;
        let mut command = child::role(&self.args, &self.output, log, *part).map_err(Error::Spawn)?;
        command.envs(token.map(|token| (child::TOKEN, token))).spawn().map_err(Error::Spawn)
    }

    async fn await_ready(&self, child: &mut Child) -> Result<(), Error> {
        let deadline = time::sleep(READY_DEADLINE);
        tokio::pin!(deadline);
        loop {
            let not_yet = match private::get(&self.socket, "/ready").await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            tokio::select! {
                status = child.wait() => {
                    let how = status.map_or_else(|error| error.to_string(), child::describe);
                    let (log, part) = &self.log;
                    return Err(Error::Died { how, said: self.output.last_words(log, *part) });
                }
                () = &mut deadline => return Err(Error::NotReady(not_yet)),
                () = time::sleep(POLL) => {}
            }
        }
    }

    async fn end(&self, mut child: Child) -> Result<Ended, Error> {
        child::stop(&mut child, self.patience).await.map_err(Error::Spawn)?;
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
