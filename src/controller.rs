//! The control plane: builds the source, the index, the authority and the servers out of each other, and runs them on
//! one thread.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use rustls::{RootCertStore, ServerConfig};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinSet,
    time::{interval, sleep},
};
use tracing::{info, warn};

use crate::{
    api::private::{ControllerFile, FileError, Status},
    rt::{clock, drain},
    tls,
};

mod args;
mod directory;
mod identity;
mod index;
mod private;
mod serve;
mod source;

pub(crate) use args::{Args, Config};
use directory::Directory;
use identity::{Authority, ca, token};
use index::Index;
use source::{dead, file::FileSource, kinds};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Directory(#[from] directory::Error),
    #[error("the certificate authority in {dir}")]
    Ca { dir: PathBuf, source: ca::Error },
    #[error("listening on {addr}")]
    Listen { addr: String, source: io::Error },
    #[error("TLS")]
    Tls(#[from] tls::Error),
    #[error("a part of the controller ended by itself")]
    Part,
}

/// A controller that listens; what it knows is read, and nothing is served before [`Controller::run`].
pub(crate) struct Controller {
    config: Config,
    directory: Directory,
    authority: Rc<Authority>,
    index: Rc<RefCell<Index>>,
    source: Rc<RefCell<FileSource>>,
    listener: TcpListener,
    api: SocketAddr,
    private: UnixListener,
}

/// How long streams and requests may take to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);
/// How often the trust anchors on disk are looked at.
const ANCHOR_INTERVAL: Duration = Duration::from_secs(1);

impl Controller {
    /// Takes the directory, opens the authority, reads the files and listens.
    ///
    /// # Errors
    /// When the directory is another controller's, or any of it cannot be done.
    pub(crate) async fn build(config: Config) -> Result<Self, Error> {
        let directory = Directory::take(&config.source)?;
        let ca_dir = directory.ca();
        let opened = ca::Ca::open(&ca_dir, &config.trust_domain, config.leaf_lifetime, clock::unix_seconds());
        let ca = opened.map_err(|source| Error::Ca { dir: ca_dir, source })?;
        let tokens = token::Key::new(&ca.token_secret);
        let mut index = Index::new(ca.trust_anchors());
        let mut source = FileSource::open(directory.root(), kinds::Settings::default());
        index.update(source.scan());
        let listener = listen(config.listen, directory.last_port()).await?;
        let api = listener.local_addr().map_err(|source| Error::Listen { addr: config.listen.to_string(), source })?;
        directory.remember_port(api.port());
        let private = directory.bind_socket()?;
        Ok(Self {
            config,
            directory,
            authority: Rc::new(Authority { ca, tokens }),
            index: Rc::new(RefCell::new(index)),
            source: Rc::new(RefCell::new(source)),
            listener,
            api,
            private,
        })
    }

    /// The source directory, resolved.
    pub(crate) fn root(&self) -> &Path {
        self.directory.root()
    }

    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    /// Serves until `shutdown`, then drains. On a `LocalSet`.
    ///
    /// # Errors
    /// When it cannot start serving, or a part of it fails.
    pub(crate) async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let (signal, drain) = drain::channel();
        let (tls_config, tls_watch) = watch::channel(self.server_config()?);
        let streams = Rc::new(());
        let private = Rc::new(private::Private {
            authority: Rc::clone(&self.authority),
            api: self.api.to_string(),
            ready: true.into(),
            status: self.status(Rc::clone(&streams)),
        });
        let api = Rc::new(serve::Api { authority: Rc::clone(&self.authority), index: Rc::clone(&self.index), streams });
        let mut parts = JoinSet::new();
        parts.spawn_local(follow_source(Rc::clone(&self.source), Rc::clone(&self.index)));
        parts.spawn_local(bury_dead(self.directory.root().to_owned(), Rc::clone(&self.source)));
        parts.spawn_local(renew(Rc::clone(&self.authority), Rc::clone(&self.index), tls_config));
        let mut servers = JoinSet::new();
        servers.spawn_local(api.serve(self.listener, tls_watch, drain.clone()));
        servers.spawn_local(private.serve(self.private, drain));
        self.directory.announce(&ControllerFile {
            schema: ControllerFile::SCHEMA.to_owned(),
            api: self.api.to_string(),
            pid: std::process::id(),
            trust_domain: self.config.trust_domain.clone(),
            name: self.config.name.clone(),
        })?;
        info!(name = self.config.name, api = %self.api, "controller ready");
        let outcome = tokio::select! {
            () = shutdown => Ok(()),
            _ = parts.join_next() => Err(Error::Part),
            _ = servers.join_next() => Err(Error::Part),
        };
        self.directory.withdraw();
        if !signal.drain(DRAIN_DEADLINE).await {
            warn!("not every stream ended in time");
        }
        if self.config.ephemeral {
            self.directory.remove().await;
        }
        outcome
    }

    fn server_config(&self) -> Result<Arc<ServerConfig>, Error> {
        server_config(&self.authority).map(|(config, _)| config)
    }

    fn status(&self, streams: Rc<()>) -> Box<dyn Fn() -> Status> {
        let (source, index) = (Rc::clone(&self.source), Rc::clone(&self.index));
        Box::new(move || {
            let (source, index) = (source.borrow(), index.borrow());
            let error =
                |e: &crate::yaml::Error| FileError { file: e.file.clone(), line: e.line, error: e.message.clone() };
            Status {
                schema: Status::SCHEMA.to_owned(),
                files: source.files().len(),
                services: index.services(),
                endpoint_slices: index.slices(),
                // Ours and the API's are no streams.
                streams: Rc::strong_count(&streams).saturating_sub(2),
                errors: source.files().errors().map(error).collect(),
            }
        })
    }
}

async fn listen(addr: SocketAddr, last_port: Option<u16>) -> Result<TcpListener, Error> {
    // The port of the last run first, so that proxies which only know an address find us again.
    if let (0, Some(port)) = (addr.port(), last_port)
        && let Ok(listener) = TcpListener::bind(SocketAddr::new(addr.ip(), port)).await
    {
        return Ok(listener);
    }
    TcpListener::bind(addr).await.map_err(|source| Error::Listen { addr: addr.to_string(), source })
}

/// A new certificate of our own and the configuration to serve with; also when that expires.
fn server_config(authority: &Authority) -> Result<(Arc<ServerConfig>, i64), Error> {
    let own = authority.ca.own(clock::unix_seconds()).map_err(|source| Error::Ca { dir: PathBuf::new(), source })?;
    let certified = tls::config::certified(tls::pem::certificates("our own chain", &own.chain)?, own.key)?;
    let roots: Arc<RootCertStore> = Arc::new(tls::pem::roots(&authority.ca.trust_anchors())?);
    let config = tls::config::server(&roots, &certified, tls::config::ClientAuth::Optional, vec![tls::API_ALPN])?;
    Ok((config, own.expires_at))
}

async fn follow_source(source: Rc<RefCell<FileSource>>, index: Rc<RefCell<Index>>) {
    loop {
        let changed = source.borrow().changed();
        changed.await;
        let changes = source.borrow_mut().scan();
        index.borrow_mut().update(changes);
    }
}

async fn bury_dead(root: PathBuf, source: Rc<RefCell<FileSource>>) {
    let mut undertaker = dead::Undertaker::default();
    let mut ticks = interval(dead::CHECK_INTERVAL);
    loop {
        ticks.tick().await;
        let instances = source.borrow().files().instances().map(|(f, s)| (f.clone(), s.clone())).collect();
        undertaker.round(&root, instances).await;
    }
}

/// Keeps our own certificate and the trust anchors current.
async fn renew(authority: Rc<Authority>, index: Rc<RefCell<Index>>, tls: watch::Sender<Arc<ServerConfig>>) {
    let mut renew_at = 0;
    let mut anchors = String::new();
    loop {
        let (now, on_disk) = (clock::unix_seconds(), authority.ca.trust_anchors());
        if now >= renew_at || anchors != on_disk {
            match server_config(&authority) {
                Ok((config, expires_at)) => {
                    tls.send_replace(config);
                    renew_at = now + (expires_at - now) * 2 / 3;
                }
                Err(error) => warn!(error = tls::reason::chain(&error), "the controller's own certificate"),
            }
            index.borrow_mut().set_trust_anchors(on_disk.clone());
            anchors = on_disk;
        }
        sleep(ANCHOR_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests;
