//! HTTP on both sides of the proxy: hyper's HTTP/1 at the edges, the h2 crate for HTTP/2 and for the links between proxies.
//!
//! A server reads requests off a connection and hands each to a handler; a client takes a request to an endpoint. In
//! between a request is `http::Request<Body>`, whatever it came in as.

use super::observe::Protocol;

pub(crate) mod body;
pub(crate) mod expect;
pub(crate) mod headers;
pub(crate) mod http1_client;
pub(crate) mod http1_server;
pub(crate) mod http2_client;
pub(crate) mod http2_server;
pub(crate) mod phase;
pub(crate) mod pump;
pub(crate) mod replay;
pub(crate) mod synthesize;
pub(crate) mod upgrade;

pub(crate) type Request = http::Request<body::Body>;
pub(crate) type Response = http::Response<body::Body>;

/// What a request is counted as: gRPC by its content type, else what it came in as.
pub(crate) fn protocol_of(request: &Request) -> Protocol {
    if headers::is_grpc(request.headers()) {
        Protocol::Grpc
    } else if request.version() == http::Version::HTTP_2 {
        Protocol::Http2
    } else {
        Protocol::Http1
    }
}
