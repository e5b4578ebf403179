//! The inbound pipeline for bytes.

use std::rc::Rc;

use bytes::Bytes;

use super::app::App;
use crate::{
    net::splice::Side,
    proxy::{
        carry::carry,
        context::Context,
        detect::Client,
        error::Error,
        io::Io,
        observe::{Edge, Protocol},
    },
    rt::clock,
    tls::Alpn,
};

/// Carries `client`'s bytes to the application and back until both have closed.
///
/// # Errors
/// When the application was not reached, or one side broke off.
pub(crate) async fn forward(
    client: Io,
    app: &App,
    verdict: &Client,
    speculative: Option<(Io, Bytes)>,
    edge: &Rc<Edge>,
    cx: &Rc<Context>,
) -> Result<(), Error> {
    let (server, greeting) = match speculative {
        Some(open) => open,
        None => match app.remote.connect(cx, Alpn::Opaque).await {
            Ok(server) => (server, Bytes::new()),
            Err(error) => {
                edge.failed(error.kind.label());
                return Err(error);
            }
        },
    };
    let protocol = if matches!(verdict, Client::Tls { .. }) { Protocol::Tls } else { Protocol::Opaque };
    let connection = edge.connection(protocol, clock::now());
    carry(client, server.with_prefix(greeting), Side::Left, &connection, cx.config.tcp_idle_timeout).await
}
