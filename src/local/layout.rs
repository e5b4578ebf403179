//! Where things lie in a mesh's directory. The controller has the other half of this agreement.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{instance, registry};
use crate::api::private::ControllerFile;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{} is too long for a socket's path ({} bytes, the system takes {MAX_SOCKET_PATH})", .0.display(), .0.as_os_str().len())]
    SocketPath(PathBuf),
    #[error("cannot read {}", path.display())]
    Controller { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Instance(#[from] instance::Error),
    #[error("cannot have port {port}")]
    Port { port: u16, source: io::Error },
}

/// The paths in one mesh's directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
}

impl Layout {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Mesh's own part of the directory: not read as configuration.
    pub(crate) fn inner(&self) -> PathBuf {
        self.dir.join(".mesh")
    }

    pub(crate) fn controller_socket(&self) -> PathBuf {
        registry::controller_socket(&self.dir)
    }

    pub(crate) fn controller_json(&self) -> PathBuf {
        self.dir.join(".mesh/controller.json")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.join(".mesh/log")
    }

    pub(crate) fn endpoints(&self) -> PathBuf {
        self.dir.join("endpoints")
    }

    pub(crate) fn slice(&self, pod: &str) -> PathBuf {
        self.dir.join(format!("endpoints/{pod}.yaml"))
    }

    /// The private admin socket of a pod's proxy, relative to the mesh's directory.
    pub(crate) fn relative_proxy_socket(pod: &str) -> PathBuf {
        PathBuf::from(format!(".mesh/proxies/{pod}.sock"))
    }

    pub(crate) fn proxy_socket(&self, pod: &str) -> Result<PathBuf, Error> {
        let path = self.dir.join(Self::relative_proxy_socket(pod));
        if path.as_os_str().len() > MAX_SOCKET_PATH { Err(Error::SocketPath(path)) } else { Ok(path) }
    }

    /// What the running controller calls its trust domain.
    pub(crate) fn trust_domain(&self) -> Result<String, Error> {
        let path = self.controller_json();
        let read = || -> io::Result<ControllerFile> { Ok(serde_json::from_slice(&fs::read(&path)?)?) };
        read()
            .map(|controller| controller.trust_domain)
            .map_err(|source| Error::Controller { path: path.clone(), source })
    }
}

/// `sun_path` of Linux holds 108 bytes, the last of them a zero.
const MAX_SOCKET_PATH: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_the_system_cannot_bind_is_refused_with_its_length() {
        let long = Layout::new(Path::new(&format!("/tmp/{}", "d".repeat(80))));
        let error = long.proxy_socket("web-00000").unwrap_err().to_string();
        assert!(error.ends_with("is too long for a socket's path (114 bytes, the system takes 107)"), "{error}");
        assert!(Layout::new(Path::new("/tmp/mesh-0/demo")).proxy_socket("web-00000").is_ok());
    }
}
