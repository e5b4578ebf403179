//! HTTP on both sides of the proxy: hyper's HTTP/1 at the edges, the h2 crate for HTTP/2 and for the links between proxies.
//!
//! A server reads requests off a connection and hands each to a handler; a client takes a request to an endpoint. In
//! between a request is `http::Request<Body>`, whatever it came in as.

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
