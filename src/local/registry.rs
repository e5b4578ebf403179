//! Which local meshes there are: `BASE/NAME` is a mesh's directory, or a symbolic link to it.
//!
//! A mesh is live while its controller's private socket accepts. Entries of dead meshes are swept by whoever looks;
//! a directory behind a link is the user's and is never removed, only the link is.

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink},
    path::{Path, PathBuf},
};

use rustix::process::{Pid, geteuid, test_kill_process};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::model::name;

#[cfg(test)]
mod tests;

/// A local mesh that a command may talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mesh {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no local mesh is running")]
    None,
    #[error("no local mesh named `{name}` is running")]
    Unknown { name: String, live: Vec<String> },
    #[error("{} local meshes are running", .0.len())]
    Several(Vec<String>),
    #[error("no local mesh is running in {}", .0.display())]
    NotLive(PathBuf),
    #[error("a local mesh named `{0}` is running already")]
    Taken(String),
    #[error(transparent)]
    Name(#[from] name::Error),
    #[error("{} {why}", path.display())]
    Unsafe { path: PathBuf, why: &'static str },
    #[error("{what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

impl Error {
    /// What the person can do about it, for the `hint:` line.
    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::None => "start one with `mesh demo` or `mesh controller --source DIR`".to_owned(),
            Self::Unknown { live, .. } if live.is_empty() => {
                "none is; start one with `mesh demo` or `mesh controller --source DIR`".to_owned()
            }
            Self::Unknown { live, .. } => format!("running: {}", live.join(", ")),
            Self::Several(names) => format!("say which with --local=NAME: {}", names.join(", ")),
            Self::NotLive(dir) => format!("start its controller with `mesh controller --source {}`", dir.display()),
            Self::Taken(_) => "choose another name with --name".to_owned(),
            Self::Unsafe { .. } => "choose another directory with MESH_LOCAL_DIR".to_owned(),
            Self::Name(_) | Self::Io { .. } => return None,
        })
    }

    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// A running mesh's name in the registry; gone when dropped. What it points to stays.
#[derive(Debug)]
#[must_use = "the name is released when this is dropped"]
pub(crate) struct Registration {
    link: Option<(PathBuf, PathBuf)>,
}

/// A directory made for one run, under a name that nobody else has. The lock shows others that its maker lives.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) mesh: Mesh,
    _lock: File,
}

/// `$MESH_LOCAL_DIR`, else `$XDG_RUNTIME_DIR/mesh`, else `/tmp/mesh-UID`. Made when missing, and only ever this user's.
pub(crate) fn base_dir() -> Result<PathBuf, Error> {
    let set = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("MESH_LOCAL_DIR")
        .or_else(|| set("XDG_RUNTIME_DIR").filter(|dir| dir.is_dir()).map(|dir| dir.join("mesh")))
        .unwrap_or_else(|| env::temp_dir().join(format!("mesh-{}", geteuid().as_raw())));
    private_dir(&base)?;
    fs::canonicalize(&base).map_err(Error::io("cannot resolve", &base))
}

/// The mesh that `--local[=NAME]` means: a name, a path (anything with a `/`), or without either the only live one.
pub(crate) fn find(selector: Option<&str>) -> Result<Mesh, Error> {
    match selector {
        Some(path) if path.contains('/') => at_path(Path::new(path)),
        _ => Registry::open()?.find(selector),
    }
}

/// Enters `dir` under `name` for as long as the guard lives. A directory that already is `BASE/NAME` needs no link.
pub(crate) fn register(name: &str, dir: &Path) -> Result<Registration, Error> {
    Registry::open()?.register(name, dir)
}

/// The name that a directory suggests for its mesh: its own, made into a label.
pub(crate) fn name_for(dir: &Path) -> String {
    let stem = dir.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let text: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    match text.trim_matches('-') {
        "" => "local".to_owned(),
        label => label.to_owned(),
    }
}

/// The socket that says whether a mesh is live.
pub(crate) fn controller_socket(dir: &Path) -> PathBuf {
    dir.join(".mesh/controller.sock")
}

/// Whether somebody accepts at `path`. A full backlog counts as life.
pub(crate) fn is_accepting(path: &Path) -> bool {
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    match connect() {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Makes `dir` if it is missing, and refuses one that others own or can enter.
pub(crate) fn private_dir(dir: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(Error::io("cannot make directory", dir))?;
    let metadata = fs::symlink_metadata(dir).map_err(Error::io("cannot look at", dir))?;
    let refuse = |why| Err(Error::Unsafe { path: dir.to_owned(), why });
    if !metadata.is_dir() {
        return refuse("is not a directory");
    }
    if metadata.uid() != geteuid().as_raw() {
        return refuse("belongs to another user");
    }
    if metadata.mode() & 0o077 != 0 {
        return refuse("can be entered by other users");
    }
    Ok(())
}

fn at_path(path: &Path) -> Result<Mesh, Error> {
    let dir = fs::canonicalize(path).map_err(Error::io("cannot resolve", path))?;
    if !is_accepting(&controller_socket(&dir)) {
        return Err(Error::NotLive(dir));
    }
    check_owner(&dir)?;
    let name = controller_field(&dir, "name").and_then(|name| name.as_str().map(str::to_owned));
    Ok(Mesh { name: name.unwrap_or_else(|| name_for(&dir)), dir })
}

/// A mesh somebody else can write to is not this user's to join: its controller hands out identities.
fn check_owner(dir: &Path) -> Result<(), Error> {
    let inner = dir.join(".mesh");
    let metadata = fs::metadata(&inner).map_err(Error::io("cannot look at", &inner))?;
    if metadata.uid() != geteuid().as_raw() {
        return Err(Error::Unsafe { path: inner, why: "belongs to another user" });
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(Error::Unsafe { path: inner, why: "can be written by other users" });
    }
    Ok(())
}

fn controller_field(dir: &Path, field: &str) -> Option<serde_json::Value> {
    let text = fs::read(dir.join(".mesh/controller.json")).ok()?;
    serde_json::from_slice::<serde_json::Value>(&text).ok()?.get(field).cloned()
}

/// Whether the controller that wrote `controller.json` is still a process, even if it does not accept (yet, any more).
fn has_controller_process(dir: &Path) -> bool {
    let pid = controller_field(dir, "pid").and_then(|pid| pid.as_i64()).and_then(|pid| i32::try_from(pid).ok());
    pid.and_then(Pid::from_raw).is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// The base directory, opened; a value of its own so that tests have theirs.
#[derive(Debug)]
pub(crate) struct Registry {
    base: PathBuf,
}

impl Registry {
    pub(crate) fn open() -> Result<Self, Error> {
        base_dir().map(|base| Self { base })
    }

    pub(crate) fn find(&self, name: Option<&str>) -> Result<Mesh, Error> {
        let mut live = self.live()?;
        if let Some(name) = name {
            let known = live.iter().position(|mesh| mesh.name == name);
            let names = || live.iter().map(|mesh| mesh.name.clone()).collect();
            let index = known.ok_or_else(|| Error::Unknown { name: name.to_owned(), live: names() })?;
            return Ok(live.swap_remove(index));
        }
        match live.len() {
            0 | 1 => live.pop().ok_or(Error::None),
            _ => Err(Error::Several(live.into_iter().map(|mesh| mesh.name).collect())),
        }
    }

    /// Every live mesh, by name; what is left of dead ones is swept on the way.
    pub(crate) fn live(&self) -> Result<Vec<Mesh>, Error> {
        let _turn = self.turn()?;
        let mut live = Vec::new();
        for entry in fs::read_dir(&self.base).map_err(Error::io("cannot list", &self.base))?.flatten() {
            let (path, Some(name)) = (entry.path(), entry.file_name().to_str().map(str::to_owned)) else { continue };
            if name::label(&name).is_err() {
                continue;
            }
            match fs::canonicalize(&path) {
                Ok(dir) if is_accepting(&controller_socket(&dir)) && check_owner(&dir).is_ok() => {
                    live.push(Mesh { name, dir });
                }
                _ => sweep(&path),
            }
        }
        live.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(live)
    }

    pub(crate) fn register(&self, name: &str, dir: &Path) -> Result<Registration, Error> {
        name::label(name)?;
        let dir = fs::canonicalize(dir).map_err(Error::io("cannot resolve", dir))?;
        let path = self.base.join(name);
        if path == dir {
            return Ok(Registration { link: None });
        }
        let _turn = self.turn()?;
        if path.symlink_metadata().is_ok() {
            // The own entry of a controller that was killed, and of one that is still going away, is free to take.
            let same = fs::read_link(&path).is_ok_and(|target| target == dir);
            if !same && fs::canonicalize(&path).is_ok_and(|there| is_accepting(&controller_socket(&there))) {
                return Err(Error::Taken(name.to_owned()));
            }
            if same { remove(&path) } else { sweep(&path) }
        }
        match symlink(&dir, &path) {
            Ok(()) => Ok(Registration { link: Some((path, dir)) }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::Taken(name.to_owned())),
            Err(error) => Err(Error::io("cannot link", &path)(error)),
        }
    }

    /// Makes `BASE/NAME` for one run; with `numbered`, the first free of NAME, NAME-2, NAME-3….
    pub(crate) fn claim(&self, name: &str, numbered: bool) -> Result<Claim, Error> {
        name::label(name)?;
        let _turn = self.turn()?;
        let mut number = 1;
        loop {
            let candidate = if number == 1 { name.to_owned() } else { format!("{name}-{number}") };
            name::label(&candidate)?;
            let dir = self.base.join(&candidate);
            if dir.symlink_metadata().is_ok() && !is_accepting(&controller_socket(&dir)) {
                sweep(&dir);
            }
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => return claimed(candidate, dir),
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("cannot make directory", &dir)(error));
                }
                Err(_) if !numbered => return Err(Error::Taken(candidate)),
                Err(_) => number += 1,
            }
        }
    }

    /// Held while entries are made or swept, so that nobody sweeps what another is just making.
    fn turn(&self) -> Result<File, Error> {
        let path = self.base.join(LOCK);
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let file = file.map_err(Error::io("cannot open", &path))?;
        file.lock().map_err(Error::io("cannot lock", &path))?;
        Ok(file)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some((link, dir)) = &self.link
            && fs::read_link(link).is_ok_and(|target| target == *dir)
        {
            remove(link);
        }
    }
}

fn claimed(name: String, dir: PathBuf) -> Result<Claim, Error> {
    let inner = dir.join(".mesh");
    private_dir(&inner)?;
    let path = inner.join(LOCK);
    let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let lock = lock.map_err(Error::io("cannot open", &path))?;
    lock.lock().map_err(Error::io("cannot lock", &path))?;
    Ok(Claim { mesh: Mesh { name, dir }, _lock: lock })
}

/// Removes an entry whose mesh is gone for certain. Best effort: what cannot be removed is looked at again next time.
fn sweep(path: &Path) {
    if !path.exists() {
        return remove(path);
    }
    if has_controller_process(path) {
        return;
    }
    if path.is_symlink() {
        // A link without a controller.json: the controller writes the link before the file, so leave it while it is young.
        if controller_field(path, "pid").is_some() || is_old(path) {
            remove(path);
        }
        return;
    }
    // Only what `claim` made: its lock file is there, and its maker does not hold the lock any more.
    let Ok(lock) = OpenOptions::new().append(true).open(path.join(".mesh").join(LOCK)) else { return };
    if !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
        let _ = fs::remove_dir_all(path);
    }
}

fn is_old(link: &Path) -> bool {
    let age = link.symlink_metadata().and_then(|metadata| metadata.modified()).map(|time| time.elapsed());
    matches!(age, Ok(Ok(age)) if age > LINK_GRACE)
}

fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}

const LOCK: &str = ".lock";
/// How long a controller may take from its entry in the registry to its `controller.json`.
const LINK_GRACE: std::time::Duration = std::time::Duration::from_secs(30);
