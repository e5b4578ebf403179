//! A connection to the controller: address, TCP, TLS, HTTP/2, each with its deadline.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{
    api::{
        client::{self, Connection},
        private::ControllerFile,
    },
    model::identity::SpiffeId,
    tls,
};

/// Where the controller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Controller {
    /// `HOST:PORT`.
    Fixed(String),
    /// A `controller.json`, read at each dial: a local controller may come back on another port.
    File(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the controller's address cannot be read from {path}")]
    Address { path: PathBuf, source: io::Error },
    #[error("dialling the controller at {addr}")]
    Dial { addr: String, source: io::Error },
    #[error("the TLS handshake with the controller at {addr}")]
    Handshake { addr: String, source: io::Error },
    #[error("the controller showed no identity")]
    NoIdentity,
    #[error(transparent)]
    Api(#[from] client::Error),
}

impl Error {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Address { .. } => "no_address",
            Self::Dial { source, .. } | Self::Handshake { source, .. } => tls::reason(source),
            Self::NoIdentity => "no_identity",
            Self::Api(error) => tls::reason::within(error),
        }
    }
}

impl Controller {
    fn addr(&self) -> Result<String, Error> {
        let path = match self {
            Self::Fixed(addr) => return Ok(addr.clone()),
            Self::File(path) => path,
        };
        std::fs::read(path)
            .and_then(|bytes| Ok(serde_json::from_slice::<ControllerFile>(&bytes)?.api))
            .map_err(|source| Error::Address { path: path.clone(), source })
    }
}

/// Dials and shakes hands. Gives the connection, what drives it, and who the controller is.
pub(crate) async fn dial(
    controller: &Controller,
    config: Arc<ClientConfig>,
) -> Result<(Connection, impl Future<Output = Result<(), hyper::Error>> + use<>, SpiffeId), Error> {
    let addr = controller.addr()?;
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let connected = timeout(CONNECT_DEADLINE, TcpStream::connect(&addr)).await.unwrap_or_else(|_| Err(late()));
    let tcp = connected.map_err(|source| Error::Dial { addr: addr.clone(), source })?;
    let handshake_error = |source| Error::Handshake { addr: addr.clone(), source };
    tcp.set_nodelay(true).map_err(handshake_error)?;
    let name = ServerName::try_from("mesh-controller").map_err(|e| handshake_error(io::Error::other(e)))?;
    let handshake = timeout(TLS_DEADLINE, TlsConnector::from(config).connect(name, tcp));
    let tls = handshake.await.unwrap_or_else(|_| Err(late())).map_err(handshake_error)?;
    let id = tls::peer_id(tls.get_ref().1.peer_certificates()).ok_or(Error::NoIdentity)?;
    let (connection, driver) = client::connect(tls).await?;
    Ok((connection, driver, id))
}

const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
const TLS_DEADLINE: Duration = Duration::from_secs(5);
