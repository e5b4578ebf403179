//! From an endpoint to a connection: plain, or mutual TLS with a peer that proves to be who it should be.

use std::{net::SocketAddr, rc::Rc};

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::{
    context::Context,
    error::{Error, Kind},
    io::Io,
    observe::{self, Edge, Protocol},
};
use crate::{
    model::{endpoint::Endpoint, identity::SpiffeId},
    net::dial,
    rt::clock,
    tls::{self, Alpn},
};

/// Where to dial, and who has to answer there. No identity: plaintext, because nothing there speaks mutual TLS.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) addr: SocketAddr,
    pub(crate) identity: Option<SpiffeId>,
    /// Under what to count its connections; `None` for the application, whose connections are nobody's edge.
    pub(crate) edge: Option<Rc<Edge>>,
}

/// A peer that is not who it should be.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("expected {expected}, but the peer is {}", found.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string))]
    Identity { expected: SpiffeId, found: Option<SpiffeId> },
    #[error("the peer does not speak the mesh's protocol")]
    Alpn,
    #[error("the handshake failed ({0})")]
    Handshake(&'static str, #[source] std::io::Error),
}

impl Remote {
    pub(crate) fn of(endpoint: &Endpoint, edge: Rc<Edge>) -> Self {
        Self { addr: endpoint.addr, identity: endpoint.identity.clone(), edge: Some(edge) }
    }

    pub(crate) fn plain(addr: SocketAddr) -> Self {
        Self { addr, identity: None, edge: None }
    }

    /// Counts a connection as open until the answer is dropped.
    pub(crate) fn count(&self, protocol: Protocol) -> Option<observe::Connection> {
        self.edge.as_ref().map(|edge| edge.connection(protocol, clock::now()))
    }

    /// Connects, within the connect timeout for TCP and the same again for TLS. Never falls back to plaintext.
    ///
    /// # Errors
    /// [`Kind::Loop`], [`Kind::Connect`], [`Kind::ConnectTimeout`], [`Kind::NoIdentity`], [`Kind::PeerIdentity`].
    pub(crate) async fn connect(&self, cx: &Context, alpn: Alpn) -> Result<Io, Error> {
        if cx.is_own(self.addr) {
            return Err(Error::new(Kind::Loop));
        }
        let Some(expected) = &self.identity else {
            return Ok(Io::tcp(self.dial(cx).await?));
        };
        let own = cx.identity().ok_or_else(|| Error::new(Kind::NoIdentity))?;
        if own.is_expired(clock::unix_seconds()) {
            return Err(Error::new(Kind::NoIdentity));
        }
        let shake = async || {
            let tcp = self.dial(cx).await?;
            let name = ServerName::IpAddress(self.addr.ip().into());
            let handshake = TlsConnector::from(own.client(alpn)).connect(name, Io::raw(tcp, bytes::Bytes::new()));
            let shaken = tokio::time::timeout(cx.config.connect_timeout, handshake).await;
            shaken.map_err(|_| Error::new(Kind::ConnectTimeout))
        };
        let stream = match shake().await? {
            // Our hello came late, and the peer's proxy took us for a client that waits for the application's greeting.
            Err(error) if tls::reason(&error) == tls::reason::NOT_TLS => shake().await?,
            shaken => shaken,
        };
        let stream = stream
            .map_err(|error| Error::caused(Kind::PeerIdentity, Refused::Handshake(tls::reason(&error), error)))?;
        let session = stream.get_ref().1;
        let found = tls::peer_id(session.peer_certificates());
        if found.as_ref() != Some(expected) {
            let refused = Refused::Identity { expected: expected.clone(), found };
            return Err(Error::caused(Kind::PeerIdentity, refused));
        }
        if session.alpn_protocol() != Some(alpn.id()) {
            return Err(Error::caused(Kind::PeerIdentity, Refused::Alpn));
        }
        Ok(Io::TlsClient(Box::new(stream)))
    }

    async fn dial(&self, cx: &Context) -> Result<tokio::net::TcpStream, Error> {
        dial::connect(self.addr, cx.config.connect_timeout).await.map_err(|error| {
            let kind = if error.kind() == std::io::ErrorKind::TimedOut { Kind::ConnectTimeout } else { Kind::Connect };
            Error::caused(kind, error)
        })
    }
}
