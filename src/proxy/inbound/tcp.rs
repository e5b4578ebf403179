//! The inbound pipeline for bytes.

use std::rc::Rc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::app::App;
use crate::{
    net::splice::{self, Side},
    proxy::{
        context::Context,
        detect::Client,
        error::{Error, Kind},
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
    mut client: Io,
    app: &App,
    verdict: &Client,
    speculative: Option<(Io, Bytes)>,
    edge: &Rc<Edge>,
    cx: &Rc<Context>,
) -> Result<(), Error> {
    let (mut server, greeting) = match speculative {
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
    if !greeting.is_empty() {
        client.write_all(&greeting).await.map_err(|error| Error::caused(Kind::Cancelled, error))?;
        client.flush().await.map_err(|error| Error::caused(Kind::Cancelled, error))?;
        connection.add_written(greeting.len() as u64);
    }
    let spliced = splice::splice(&mut client, &mut server, cx.config.tcp_idle_timeout, |from, n| match from {
        Side::Left => connection.add_read(n as u64),
        Side::Right => connection.add_written(n as u64),
    })
    .await;
    spliced.map_err(|error| {
        connection.failed(match &error {
            splice::Error::Idle(_) => "idle",
            splice::Error::Broken(Side::Left, _) => "client-reset",
            splice::Error::Broken(Side::Right, _) => "server-reset",
        });
        Error::caused(Kind::Reset, error)
    })
}
