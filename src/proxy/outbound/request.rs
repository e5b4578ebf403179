//! The outbound request pipeline, top to bottom: record, pick, send, and on to another endpoint while the request has
//! reached nobody.

use std::{net::SocketAddr, rc::Rc};

use http::{HeaderValue, Uri, Version, header, uri::Scheme};

use super::{endpoint, target::Target};
use crate::{
    proxy::{
        context::Context,
        error::{Error, Kind, Retry},
        http::{
            Request, Response,
            body::{Holds, Tail},
            headers, protocol_of, synthesize,
        },
        observe::{self, Protocol},
    },
    rt::clock,
};

/// Endpoints that one request may be offered to.
const MAX_TRIES: usize = 5;

/// Answers `request` from one of `target`'s endpoints, or says why not. `refused`: what was wrong with it from the start.
pub(crate) async fn handle(
    mut request: Request,
    refused: Option<Error>,
    target: &Rc<Target>,
    cx: &Rc<Context>,
) -> Response {
    let protocol = protocol_of(&request);
    let mut record = target.edge().request(protocol, clock::now());
    if request.version() == Version::HTTP_2 {
        complete_authority(&mut request, &target.name());
    }
    let sent = match refused {
        Some(error) => Err(error),
        None => send(request, target, &mut record, cx).await,
    };
    match sent {
        Ok((response, lease, holds)) => {
            record.response(response.status().as_u16(), headers::grpc_status(response.headers()));
            response.map(|body| body.with_tail(Tail { record, lease: Some(lease), holds }))
        }
        Err(error) => {
            tracing::debug!(target = %target.name(), %error, "request failed");
            let response = synthesize::error(&error, protocol == Protocol::Grpc);
            record.error(error.kind.label());
            record.response(response.status().as_u16(), headers::grpc_status(response.headers()));
            response.map(|body| body.with_tail(Tail { record, lease: None, holds: Holds::Nothing }))
        }
    }
}

async fn send(
    mut request: Request,
    target: &Rc<Target>,
    record: &mut observe::Request,
    cx: &Rc<Context>,
) -> Result<(Response, endpoint::Lease, Holds), Error> {
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut last_error = None;
    loop {
        let sent_at = clock::now();
        let Some(lease) = target.pick(sent_at, &tried) else {
            return Err(last_error.unwrap_or_else(|| Error::new(Kind::NoEndpoints)));
        };
        let reach = &lease.member().reach;
        record.move_to(&reach.edge);
        match reach.send(request, cx).await {
            Ok((response, holds)) => {
                endpoint::note(&lease, Ok((sent_at, clock::now())), cx);
                return Ok((response, lease, holds));
            }
            Err(unanswered) => {
                endpoint::note(&lease, Err(&unanswered.error), cx);
                let may_move = unanswered.error.retry == Retry::Safe && tried.len() + 1 < MAX_TRIES;
                match unanswered.request {
                    Some(back) if may_move => request = back,
                    _ => return Err(unanswered.error),
                }
                tried.push(lease.member().endpoint.addr);
                last_error = Some(unanswered.error);
            }
        }
    }
}

/// On a link a request without `:authority` is one that came in as HTTP/1 (RFC 9113 section 8.3.1 has it so for requests
/// that are translated): so one that came in as HTTP/2 always has an authority.
pub(crate) fn complete_authority(request: &mut Request, target: &str) {
    if request.uri().authority().is_some() {
        return;
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let fallback = target.rsplit('/').next().unwrap_or_default();
    let authority = [host.unwrap_or_default(), fallback, "localhost"].iter().find_map(|text| text.parse().ok());
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.authority = authority;
    parts.scheme = parts.scheme.or(Some(Scheme::HTTP));
    parts.path_and_query = parts.path_and_query.or_else(|| Some(http::uri::PathAndQuery::from_static("/")));
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    if let Some(authority) = request.uri().authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok())
        && request.headers().contains_key(header::HOST)
    {
        request.headers_mut().insert(header::HOST, authority);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::http::body::Body;

    #[test]
    fn an_http_2_request_always_has_an_authority() {
        for host in [Some("orders.shop"), None, Some("not a host")] {
            let mut request = http::Request::get("/a").version(Version::HTTP_2).body(Body::empty()).expect("valid");
            if let Some(host) = host {
                request.headers_mut().insert(header::HOST, HeaderValue::from_static(host));
            }
            complete_authority(&mut request, "shop/orders:80");
            let expected = if host == Some("orders.shop") { "orders.shop" } else { "orders:80" };
            assert_eq!(request.uri().authority().map(|a| a.as_str()), Some(expected));
            assert_eq!(request.uri().path(), "/a");
        }
    }
}
