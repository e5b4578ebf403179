//! The controller's own files in the source directory: `.mesh/`, its lock, its socket, its announcement.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt, PermissionsExt},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use tokio::{net::UnixListener, time::sleep};
use tracing::warn;

use crate::api::private::ControllerFile;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path}")]
    File { path: PathBuf, source: io::Error },
    #[error("another controller already serves {dir}")]
    Taken { dir: PathBuf },
    #[error("the path of the socket {path} is too long for a Unix socket: use a directory with a shorter path")]
    LongPath { path: PathBuf },
}

/// Held as long as the controller lives; the lock goes with the process, however it ends.
pub(crate) struct Directory {
    root: PathBuf,
    _lock: OwnedFd,
}

/// How long proxies may take to leave before an ephemeral directory is removed under them.
const LEAVE_DEADLINE: Duration = Duration::from_secs(10);
const LEAVE_CHECK: Duration = Duration::from_millis(50);
/// `sockaddr_un`, with its final zero.
const MAX_SOCKET_PATH: usize = 107;

impl Directory {
    pub(crate) fn take(root: &Path) -> Result<Self, Error> {
        private_dir(root)?;
        let root = fs::canonicalize(root).map_err(at(root))?;
        for dir in [".mesh", ".mesh/proxies", "endpoints"] {
            private_dir(&root.join(dir))?;
        }
        let path = root.join(".mesh/lock");
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let lock = open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| at(&path)(e.into()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { root, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Taken { dir: root }),
            Err(error) => Err(at(&path)(error.into())),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.root.join(".mesh/ca")
    }

    pub(crate) fn last_port(&self) -> Option<u16> {
        fs::read_to_string(self.port_file()).ok()?.trim().parse().ok().filter(|port| *port != 0)
    }

    /// A convenience for the next run: its failure is not this run's.
    pub(crate) fn remember_port(&self, port: u16) {
        if let Err(error) = fs::write(self.port_file(), port.to_string()) {
            warn!(%error, "the port of the API cannot be remembered");
        }
    }

    pub(crate) fn bind_socket(&self) -> Result<UnixListener, Error> {
        let path = self.socket();
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(Error::LongPath { path });
        }
        // We hold the lock, so this is a dead controller's.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(at(&path))?;
        // `.mesh` is 0700 already; this is for those who look.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(at(&path))?;
        Ok(listener)
    }

    /// Says that the controller is ready, and where.
    pub(crate) fn announce(&self, file: &ControllerFile) -> Result<(), Error> {
        let path = self.announcement();
        let draft = path.with_extension("draft");
        let mut text = serde_json::to_vec(file).map_err(|e| at(&path)(e.into()))?;
        text.push(b'\n');
        fs::write(&draft, text).map_err(at(&draft))?;
        fs::rename(&draft, &path).map_err(at(&path))
    }

    /// What a live controller has is taken away.
    pub(crate) fn withdraw(&self) {
        let _ = fs::remove_file(self.announcement());
        let _ = fs::remove_file(self.socket());
    }

    /// Waits for the proxies to leave, and removes everything.
    pub(crate) async fn remove(self) {
        let waiting = async {
            while self.proxies_live() {
                sleep(LEAVE_CHECK).await;
            }
        };
        if tokio::time::timeout(LEAVE_DEADLINE, waiting).await.is_err() {
            warn!(dir = %self.root.display(), "removing the directory although proxies still use it");
        }
        // Something may be written while we remove.
        for _ in 0..20 {
            match fs::remove_dir_all(&self.root) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => sleep(LEAVE_CHECK).await,
                _ => return,
            }
        }
        warn!(dir = %self.root.display(), "the directory could not be removed");
    }

    fn proxies_live(&self) -> bool {
        let Ok(entries) = fs::read_dir(self.root.join(".mesh/proxies")) else { return false };
        entries.flatten().any(|entry| UnixStream::connect(entry.path()).is_ok())
    }

    fn socket(&self) -> PathBuf {
        self.root.join(".mesh/controller.sock")
    }

    fn announcement(&self) -> PathBuf {
        self.root.join(".mesh/controller.json")
    }

    fn port_file(&self) -> PathBuf {
        self.root.join(".mesh/port")
    }
}

fn private_dir(dir: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { path: path.clone(), source }
}
