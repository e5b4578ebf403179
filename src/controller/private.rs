//! The private side: HTTP/1.1 on a Unix socket that only this user can reach. Join tokens, readiness, status.

use std::{cell::Cell, convert::Infallible, rc::Rc, time::Duration};

use http::{Method, Request, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::UnixListener, task::JoinSet, time::timeout};
use tracing::debug;

use super::identity::Authority;
use crate::{
    api::{
        private::{JoinAnswer, JoinRequest, Status},
        server::{self, Answer},
    },
    model::name,
    rt::{clock, drain},
};

pub(crate) struct Private {
    pub(crate) authority: Rc<Authority>,
    /// The address to put into tokens.
    pub(crate) api: String,
    pub(crate) ready: Cell<bool>,
    pub(crate) status: Box<dyn Fn() -> Status>,
}

const MAX_CONNECTIONS: usize = 64;
const MAX_JOIN_BYTES: usize = 4 << 10;
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
const CONNECTION_DEADLINE: Duration = Duration::from_secs(60);

impl Private {
    pub(crate) async fn serve(self: Rc<Self>, listener: UnixListener, mut drain: drain::Watch) {
        let mut connections = JoinSet::new();
        loop {
            let full = connections.len() >= MAX_CONNECTIONS;
            let accepted = tokio::select! {
                accepted = listener.accept(), if !full => accepted,
                Some(_) = connections.join_next() => continue,
                () = drain.signalled() => return,
            };
            let Ok((stream, _)) = accepted else { continue };
            let private = Rc::clone(&self);
            connections.spawn_local(async move {
                let service = service_fn(move |request| {
                    let private = Rc::clone(&private);
                    async move { Ok::<_, Infallible>(private.answer(request).await) }
                });
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(HEADER_DEADLINE);
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                if let Ok(Err(error)) = timeout(CONNECTION_DEADLINE, connection).await {
                    debug!(%error, "private connection ended");
                }
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        match (&head.method, head.uri.path()) {
            (&Method::POST, "/v1/join") => self.join(body).await,
            (&Method::GET, "/status") => server::json(StatusCode::OK, &(self.status)()),
            (&Method::GET, "/ready") if self.ready.get() => server::json(StatusCode::OK, &serde_json::json!({})),
            (&Method::GET, "/ready") => server::refuse(StatusCode::SERVICE_UNAVAILABLE, "not ready yet"),
            (_, "/v1/join" | "/status" | "/ready") => {
                server::refuse(StatusCode::METHOD_NOT_ALLOWED, "this method is not answered here")
            }
            _ => server::refuse(StatusCode::NOT_FOUND, "there is nothing here"),
        }
    }

    async fn join(&self, body: Incoming) -> Answer {
        let asked: JoinRequest = match server::read(body, MAX_JOIN_BYTES).await {
            Ok(asked) => asked,
            Err(error) => return server::refuse(error.status(), error),
        };
        if let Err(error) = name::label(&asked.namespace).and(name::label(&asked.service_account)) {
            return server::refuse(StatusCode::BAD_REQUEST, error);
        }
        let now = clock::unix_seconds();
        let token = self.authority.invite(self.api.clone(), &asked.namespace, &asked.service_account, now);
        server::json(StatusCode::OK, &JoinAnswer { token: token.to_string() })
    }
}
