//! A directory that stands for the cluster: its YAML and JSON files, watched.
//!
//! inotify says when to look, a slow rescan makes up for what it missed. Hidden files and directories are not looked at,
//! `.mesh` among them.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::AccessKind};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{Change, files::Files, kinds};
use crate::yaml;

pub(crate) struct FileSource {
    root: PathBuf,
    files: Files,
    stamps: HashMap<PathBuf, Stamp>,
    dirty: Arc<Dirty>,
    /// `None`: the system refused, so we poll.
    _watcher: Option<RecommendedWatcher>,
    rescan: Duration,
}

/// What changes when a file's content does.
type Stamp = (u64, i64, i64, u64);

#[derive(Default)]
struct Dirty {
    /// Relative to the root. Bounded: beyond that many the scan finds them by their stamps.
    paths: Mutex<BTreeSet<PathBuf>>,
    some: Notify,
}

/// A change is taken up once nothing has happened for this long …
const QUIET: Duration = Duration::from_millis(15);
/// … or at the latest after this.
const DEBOUNCE: Duration = Duration::from_millis(50);
const RESCAN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(500);
const MAX_DIRTY: usize = 4096;
const MAX_DEPTH: usize = 16;

impl FileSource {
    /// Watches `root`, which must be absolute and free of symbolic links. Nothing is read before [`Self::scan`].
    pub(crate) fn open(root: &Path, settings: kinds::Settings) -> Self {
        let dirty = Arc::new(Dirty::default());
        let watcher = watch(root, Arc::clone(&dirty));
        if let Err(error) = &watcher {
            warn!(%error, "files cannot be watched, looking for changes every half a second");
        }
        let rescan = if watcher.is_ok() { RESCAN } else { POLL };
        Self {
            root: root.to_owned(),
            files: Files::new(settings),
            stamps: HashMap::new(),
            dirty,
            _watcher: watcher.ok(),
            rescan,
        }
    }

    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// Waits until something may have changed. Cancel safe.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> + use<> {
        let (dirty, rescan) = (Arc::clone(&self.dirty), self.rescan);
        async move {
            if timeout(rescan, dirty.some.notified()).await.is_err() {
                return;
            }
            let latest = Instant::now() + DEBOUNCE;
            while Instant::now() < latest && timeout(QUIET, dirty.some.notified()).await.is_ok() {}
            // Should it have been cut off by the deadline, the next round looks at what is still being written.
            sleep(Duration::ZERO).await;
        }
    }

    /// Reads what is new, and says what follows from it.
    pub(crate) fn scan(&mut self) -> Vec<Change> {
        let named = std::mem::take(&mut *self.dirty.paths.lock());
        let mut present = HashMap::new();
        list(&self.root, Path::new(""), 0, &mut present);
        let mut changes = Vec::new();
        let gone: Vec<_> = self.stamps.keys().filter(|path| !present.contains_key(*path)).cloned().collect();
        for path in gone {
            self.stamps.remove(&path);
            changes.extend(self.files.remove(&path));
        }
        let mut paths: Vec<_> = present.into_iter().collect();
        paths.sort();
        for (path, stamp) in paths {
            if self.stamps.get(&path) != Some(&stamp) || named.contains(&path) {
                changes.extend(self.read(&path));
                self.stamps.insert(path, stamp);
            }
        }
        changes
    }

    fn read(&mut self, path: &Path) -> Vec<Change> {
        let full = self.root.join(path);
        let failed = |message: String| yaml::Error { file: path.display().to_string(), line: 0, message };
        let text = match fs::metadata(&full) {
            Ok(metadata) if metadata.len() > yaml::MAX_BYTES as u64 => {
                Err(failed(format!("the file is larger than {} bytes", yaml::MAX_BYTES)))
            }
            Ok(_) => fs::read_to_string(&full).map_err(|error| failed(error.to_string())),
            // Gone since it was listed: the next scan says so.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => Err(failed(error.to_string())),
        };
        let was_broken = self.files.error(path).is_some();
        let (changes, error) = match text {
            Ok(text) => self.files.write(path, &text),
            Err(error) => (Vec::new(), self.files.fail(path, error)),
        };
        match error {
            Some(error) => {
                warn!(
                    file = error.file,
                    line = error.line,
                    error = error.message,
                    "broken file, keeping its last state"
                );
            }
            None if was_broken && self.files.error(path).is_none() => {
                info!(file = %path.display(), "file is good again")
            }
            None => {}
        }
        changes
    }
}

fn watch(root: &Path, dirty: Arc<Dirty>) -> notify::Result<RecommendedWatcher> {
    let base = root.to_owned();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return dirty.some.notify_one() };
        let read_only = matches!(event.kind, EventKind::Access(kind) if !matches!(kind, AccessKind::Close(notify::event::AccessMode::Write)));
        let paths = event.paths.iter().filter_map(|path| path.strip_prefix(&base).ok()).filter(|path| is_visible(path));
        let mut visible = paths.peekable();
        if read_only || (visible.peek().is_none() && !event.need_rescan()) {
            return;
        }
        let mut paths = dirty.paths.lock();
        let room = MAX_DIRTY.saturating_sub(paths.len());
        paths.extend(visible.take(room).map(Path::to_owned));
        dirty.some.notify_one();
    })?;
    watcher.watch(root, RecursiveMode::Recursive)?;
    Ok(watcher)
}

fn is_visible(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(name) if !name.as_encoded_bytes().starts_with(b".")))
}

fn is_object_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

/// Every object file below `dir`, with its stamp. Symbolic links to files are followed, to directories not: they may
/// lead round in circles.
fn list(root: &Path, dir: &Path, depth: usize, found: &mut HashMap<PathBuf, Stamp>) {
    let Ok(entries) = fs::read_dir(root.join(dir)) else { return };
    for entry in entries.flatten() {
        let path = dir.join(entry.file_name());
        if !is_visible(Path::new(&entry.file_name())) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if depth < MAX_DEPTH {
                list(root, &path, depth + 1, found);
            }
        } else if is_object_file(&path)
            && let Ok(metadata) = fs::metadata(root.join(&path))
            && metadata.is_file()
        {
            found.insert(path, (metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ino()));
        }
    }
}

#[cfg(test)]
mod tests;
