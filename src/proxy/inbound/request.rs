//! The inbound request pipeline: record, send to the application, and on a link give back what never got there.

use std::rc::Rc;

use super::app::App;
use crate::{
    proxy::{
        context::Context,
        error::{Error, Kind, Retry},
        http::{
            Request, Response,
            body::{Holds, Tail},
            headers,
            http2_server::Answer,
            protocol_of, synthesize,
        },
        observe::{self, Edge, Protocol},
    },
    rt::clock,
};

/// Answers a request whose client is no proxy: an error is answered as what it is.
pub(crate) async fn answer(
    request: Request,
    refused: Option<Error>,
    app: &App,
    edge: &Rc<Edge>,
    cx: &Rc<Context>,
) -> Response {
    let protocol = protocol_of(&request);
    let mut record = edge.request(protocol, clock::now());
    let sent = match refused {
        Some(error) => Err(error),
        None => app.send(request, cx).await.map_err(|unanswered| unanswered.error),
    };
    match sent {
        Ok((response, holds)) => deliver(response, holds, record),
        Err(error) => refuse(&error, protocol, &mut record),
    }
}

/// Answers a request from another proxy, which can offer it to another endpoint if it never reached the application.
pub(crate) async fn relay(request: Request, app: &App, edge: &Rc<Edge>, cx: &Rc<Context>) -> Answer {
    let protocol = protocol_of(&request);
    let mut record = edge.request(protocol, clock::now());
    match app.send(request, cx).await {
        Ok((response, holds)) => Answer::Response(deliver(response, holds, record)),
        Err(unanswered) => {
            let error = unanswered.error;
            if error.retry == Retry::Safe && error.kind != Kind::Loop {
                tracing::debug!(app = %app.remote.addr, %error, "application not reached");
                record.error(error.kind.label());
                record.response(error.kind.status().as_u16(), None);
                return Answer::Refused;
            }
            Answer::Response(refuse(&error, protocol, &mut record))
        }
    }
}

fn deliver(response: Response, holds: Holds, mut record: observe::Request) -> Response {
    record.response(response.status().as_u16(), headers::grpc_status(response.headers()));
    response.map(|body| body.with_tail(Tail { record, lease: None, holds }))
}

fn refuse(error: &Error, protocol: Protocol, record: &mut observe::Request) -> Response {
    tracing::debug!(%error, "request failed");
    let response = synthesize::error(error, protocol == Protocol::Grpc);
    record.error(error.kind.label());
    record.response(response.status().as_u16(), headers::grpc_status(response.headers()));
    response
}
