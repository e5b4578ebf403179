//! Instances that died without taking their file along: nobody accepts on their proxy's socket any more.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::UnixStream, time::timeout};
use tracing::info;

/// Counts failed checks in a row.
#[derive(Debug, Default)]
pub(crate) struct Undertaker {
    strikes: HashMap<PathBuf, u32>,
}

pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// One failure may be a proxy that is being restarted.
const STRIKES: u32 = 2;
const DEADLINE: Duration = Duration::from_millis(500);

impl Undertaker {
    /// Checks every instance (its file and its socket, both relative to `root`) once, and removes the files of the dead.
    pub(crate) async fn round(&mut self, root: &Path, instances: Vec<(PathBuf, PathBuf)>) {
        let mut strikes = HashMap::new();
        for (file, socket) in instances {
            let socket = root.join(socket);
            if !is_dead(&socket).await {
                continue;
            }
            let count = self.strikes.get(&file).copied().unwrap_or_default() + 1;
            if count < STRIKES {
                strikes.insert(file, count);
                continue;
            }
            info!(file = %file.display(), "instance is gone, removing its endpoints");
            // Somebody else may have been faster.
            let _ = fs::remove_file(root.join(&file));
            let _ = fs::remove_file(&socket);
        }
        self.strikes = strikes;
    }
}

async fn is_dead(socket: &Path) -> bool {
    match timeout(DEADLINE, UnixStream::connect(socket)).await {
        Ok(Err(error)) => matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound),
        // Slow or with a full backlog is not dead.
        Ok(Ok(_)) | Err(_) => false,
    }
}
