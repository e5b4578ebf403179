//! Connections of the workload: what are they for, what do they speak, and then one pipeline for each.

use std::rc::Rc;

use tokio::net::TcpStream;

use super::{
    context::Context,
    detect::Client,
    error::{Error, Kind},
    http::{self, http1_server, http2_server},
    io::Io,
    race::{self, Outcome, Patience},
};
use crate::{model::service::ProtocolHint, rt::drain};

pub(crate) mod endpoint;
pub(crate) mod request;
pub(crate) mod target;
pub(crate) mod targets;
pub(crate) mod tcp;

use target::Target;

/// Serves one connection for `target`.
///
/// # Errors
/// For the log and the counters: whoever is at the other end has been told.
pub(crate) async fn serve(
    mut client: TcpStream,
    target: Rc<Target>,
    cx: Rc<Context>,
    mut drain: drain::Watch,
) -> Result<(), Error> {
    if let Err(error) = target.known(cx.config.discovery_timeout).await {
        return undiscovered(client, &cx, drain, error.kind).await;
    }
    let hint = target.hint();
    if hint == ProtocolHint::Opaque {
        cx.observer.detected("opaque", "hint");
        return tcp::forward(Io::tcp(client), &target, tcp::What::Opaque, None, &cx).await;
    }
    // A port that is known to be HTTP waits for its client, however long that takes: only the version is open.
    let http = matches!(hint, ProtocolHint::Http1 | ProtocolHint::Http2 | ProtocolHint::Grpc);
    let patience = Patience {
        silence: if http { cx.config.http.idle_timeout } else { target.silence(cx.config.detect_wait) },
        opening: cx.config.http.header_timeout,
        idle: cx.config.http.idle_timeout,
    };
    let outcome = tokio::select! {
        biased;
        outcome = race::race(&mut client, patience, || tcp::speculate(&target, &cx)) => outcome,
        // Opened ahead of need, as pools do: it has not asked for anything yet.
        () = drain.signalled() => return Ok(()),
    };
    match outcome.map_err(|error| Error::caused(Kind::Cancelled, error))? {
        Outcome::Server { connection, bytes } => {
            cx.observer.detected("opaque", "server");
            target.learn_server_first();
            tcp::forward(Io::tcp(client), &target, tcp::What::Opaque, Some((connection, bytes)), &cx).await
        }
        Outcome::Client { verdict: Client::Http1, bytes, .. } => {
            target.saw_http();
            cx.observer.detected("http1", if http { "hint" } else { "client" });
            http1(Io::tcp(client).with_prefix(bytes), target, cx, drain).await
        }
        Outcome::Client { verdict: Client::Http2, bytes, .. } => {
            target.saw_http();
            cx.observer.detected("http2", if http { "hint" } else { "client" });
            http2(Io::tcp(client).with_prefix(bytes), target, cx, drain).await
        }
        Outcome::Client { verdict, bytes, speculative } => {
            let what = match verdict {
                Client::Tls { sni, .. } => tcp::What::Tls { sni },
                _ => tcp::What::Opaque,
            };
            cx.observer.detected(what.label(), "client");
            tcp::forward(Io::tcp(client).with_prefix(bytes), &target, what, speculative, &cx).await
        }
    }
}

async fn http1(io: Io, target: Rc<Target>, cx: Rc<Context>, drain: drain::Watch) -> Result<(), Error> {
    let limits = cx.config.http;
    let handler = move |mut request: http::Request| {
        let (target, cx) = (Rc::clone(&target), Rc::clone(&cx));
        async move {
            let refused = http::headers::normalize_http1(&mut request).err();
            request::handle(request, refused.map(|why| Error::caused(Kind::BadRequest, why)), &target, &cx).await
        }
    };
    http1_server::serve(io, &limits, drain, handler).await
}

async fn http2(io: Io, target: Rc<Target>, cx: Rc<Context>, drain: drain::Watch) -> Result<(), Error> {
    let limits = cx.config.http;
    let handler = move |request: http::Request| {
        let (target, cx) = (Rc::clone(&target), Rc::clone(&cx));
        async move { http2_server::Answer::Response(request::handle(request, None, &target, &cx).await) }
    };
    http2_server::serve(io, &limits, drain, handler).await
}

/// Nobody said what the destination is: an HTTP client is told so, any other connection closed.
async fn undiscovered(mut client: TcpStream, cx: &Rc<Context>, drain: drain::Watch, kind: Kind) -> Result<(), Error> {
    let patience = Patience {
        silence: cx.config.http.header_timeout,
        opening: cx.config.http.header_timeout,
        idle: cx.config.http.header_timeout,
    };
    let nobody = || async { Err::<Io, _>(Error::new(kind)) };
    let Ok(Outcome::Client { verdict, bytes, .. }) = race::race(&mut client, patience, nobody).await else {
        return Err(Error::new(kind));
    };
    let io = Io::tcp(client).with_prefix(bytes);
    let is_grpc = |request: &http::Request| http::headers::is_grpc(request.headers());
    let answer = move |grpc| async move { http::synthesize::error(&Error::new(kind), grpc) };
    let served = match verdict {
        Client::Http1 => http1_server::serve(io, &cx.config.http, drain, move |r| answer(is_grpc(&r))).await,
        Client::Http2 => {
            let handler = move |r| async move { http2_server::Answer::Response(answer(is_grpc(&r)).await) };
            http2_server::serve(io, &cx.config.http, drain, handler).await
        }
        _ => Ok(()),
    };
    served.and(Err(Error::new(kind)))
}
