//! `mesh demo`: a shop of small services in a mesh of its own, every hop meshed, and nothing of it left afterwards.
//!
//! All parts are children of this one process. Started: controller, services, load; stopped: load, services,
//! controller, which removes the directory. A part that dies in between is started again.

use std::{io, net::SocketAddr, path::PathBuf, process::ExitStatus, rc::Rc, time::Duration};

use rustix::process::Signal;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::timeout,
};

use super::{
    Mesh, Published, Run, RunError, Say,
    app::OnExit,
    child::Output,
    instance::Instance,
    layout::Layout,
    registry::{self, Claim, Registry},
    role::{self, Role},
    run,
};
use crate::rt::drain;

mod cart;
mod grpc;
mod http;
mod inventory;
mod latency;
mod load;
pub(crate) mod service;
pub(crate) mod shop;

#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// `None`: the first free of demo, demo-2, demo-3….
    pub(crate) name: Option<String>,
    /// Requests per second of the load.
    pub(crate) rate: u32,
    /// Where the load keeps its log.
    pub(crate) report: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error("the controller")]
    Controller(#[source] role::Error),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot find this executable")]
    Executable(#[source] io::Error),
    #[error(transparent)]
    Instance(#[from] RunError),
    #[error("{0} ended by itself ({1})")]
    Ended(String, ExitStatus),
    #[error("a part of the demo panicked")]
    Panicked(#[from] JoinError),
    #[error("the shop was not up within {}s", START_DEADLINE.as_secs())]
    Late,
    #[error("{} is still there", .0.display())]
    Left(PathBuf),
}

/// The parts of a demo that runs, or that has come as far as it has.
pub(crate) struct Demo {
    claim: Claim,
    layout: Layout,
    output: Output,
    say: Say,
    controller: JoinSet<Result<(), role::Error>>,
    stop_controller: Option<drain::Signal>,
    /// The services, then the load: groups are stopped in the reverse order of their start.
    groups: Vec<Group>,
}

/// Instances that are started and stopped together.
struct Group {
    tasks: JoinSet<(String, Result<ExitStatus, RunError>)>,
    stop: drain::Signal,
    /// Where each instance can be reached, by its name.
    published: Vec<(String, watch::Receiver<Option<Published>>)>,
    /// An instance's application hears no signals of ours, but its end of the channel must stay open.
    _signals: Vec<mpsc::Sender<Signal>>,
}

impl Demo {
    /// A directory under the demo's name, with the shop's Services in it.
    pub(crate) fn new(name: Option<&str>, say: Say) -> Result<Self, Error> {
        let claim = Registry::open()?.claim(name.unwrap_or("demo"), name.is_none())?;
        let layout = Layout::new(&claim.mesh.dir);
        let output = Output::Files(layout.logs());
        let demo =
            Self { layout, output, say, controller: JoinSet::new(), stop_controller: None, groups: Vec::new(), claim };
        registry::private_dir(&demo.layout.logs())?;
        let path = demo.layout.dir.join("shop.yaml");
        std::fs::write(&path, shop::services()).map_err(|source| Error::Write { path, source })?;
        Ok(demo)
    }

    pub(crate) fn mesh(&self) -> &Mesh {
        &self.claim.mesh
    }

    /// Starts everything and says the front end's address. `progress` hears how many of how many parts are up.
    pub(crate) async fn start(
        &mut self,
        options: &Options,
        progress: impl Fn(usize, usize),
    ) -> Result<SocketAddr, Error> {
        let executable = std::env::current_exe().map_err(Error::Executable)?;
        let mut services = shop::instances(&executable, options.rate, options.report.as_deref());
        let load = services.split_off(services.len() - 1);
        let parts = services.len() + load.len() + 1;
        progress(0, parts);
        self.start_controller().await?;
        progress(1, parts);
        let mut up = 1;
        // The load last: what it sees first should be a shop that is open.
        for instances in [services, load] {
            let group = self.spawn(instances);
            let waiting = group.all_published(|now| progress(up + now, parts));
            timeout(START_DEADLINE, waiting).await.map_err(|_| Error::Late)??;
            up += group.published.len();
        }
        let front_end = self.groups.iter().flat_map(|group| &group.published).find(|(name, _)| name == shop::FRONT_END);
        front_end.and_then(|(_, seen)| seen.borrow().as_ref()?.inbound).ok_or(Error::Late)
    }

    async fn start_controller(&mut self) -> Result<(), Error> {
        let (up, mut ready) = watch::channel(false);
        let (signal, stop) = drain::channel();
        let (name, say) = (&self.claim.mesh.name, Rc::clone(&self.say));
        let role = Role::ephemeral_controller(name, &self.layout, &self.output, CONTROLLER_PATIENCE, say);
        self.controller.spawn_local(async move { role.run(up, stop).await });
        self.stop_controller = Some(signal);
        tokio::select! {
            Some(ended) = self.controller.join_next() => {
                ended?.map_err(Error::Controller)?;
                Err(Error::Controller(role::Error::Stopped))
            }
            _ = ready.wait_for(|ready| *ready) => Ok(()),
        }
    }

    fn spawn(&mut self, instances: Vec<Instance>) -> &mut Group {
        let (stop, watch) = drain::channel();
        let mut group = Group { tasks: JoinSet::new(), stop, published: Vec::new(), _signals: Vec::new() };
        for instance in instances {
            let name = instance.name.clone();
            let (published, seen) = watch::channel(None);
            let (hold, signals) = mpsc::channel(1);
            let run_it = Run {
                instance,
                on_exit: OnExit::Restart,
                signals,
                published,
                output: self.output.clone(),
                patience: PROXY_PATIENCE,
            };
            group.published.push((name.clone(), seen));
            group._signals.push(hold);
            let (mesh, say, stop) = (self.claim.mesh.clone(), Rc::clone(&self.say), watch.clone());
            group.tasks.spawn_local(async move { (name, run(&mesh, run_it, say, stop).await) });
        }
        self.groups.push(group);
        let last = self.groups.len() - 1;
        &mut self.groups[last]
    }

    /// Resolves when a part has ended for good: that is an error, since parts that die are started again.
    pub(crate) async fn failed(&mut self) -> Error {
        let mut groups = self.groups.iter_mut();
        let (services, load) = (groups.next(), groups.next());
        let ended = async |group: Option<&mut Group>| match group {
            Some(group) => group.ended().await,
            None => std::future::pending().await,
        };
        tokio::select! {
            error = ended(services) => error,
            error = ended(load) => error,
        }
    }

    /// Stops all parts in order and sees to it that nothing is left. After a failure (`quiet`) only that is worth
    /// telling: the other parts mostly have the same to say.
    pub(crate) async fn stop(mut self, quiet: bool) -> Result<(), Error> {
        while let Some(Group { mut tasks, stop, .. }) = self.groups.pop() {
            stop.drain(PROXY_PATIENCE * 3).await;
            while let Some(ended) = tasks.join_next().await {
                if let (name, Err(error)) = ended?
                    && !quiet
                {
                    (self.say)(&format!("warning: {name}: {error}"));
                }
            }
        }
        if let Some(stop) = self.stop_controller.take() {
            stop.drain(CONTROLLER_PATIENCE * 2).await;
            while let Some(ended) = self.controller.join_next().await {
                ended?.map_err(Error::Controller)?;
            }
        }
        self.remove()
    }

    /// Removes what the controller did not: it was killed, or never started.
    fn remove(&self) -> Result<(), Error> {
        let dir = &self.claim.mesh.dir;
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Left(dir.clone())),
            _ => Ok(()),
        }
    }
}

/// Also on the way out of a failure: the children are killed as their tasks go, and their directory is removed.
impl Drop for Demo {
    fn drop(&mut self) {
        self.groups.clear();
        self.controller.abort_all();
        // `stop` has removed it, and says so when it could not.
        let _ = self.remove();
    }
}

impl Group {
    /// Waits until every instance is published.
    ///
    /// # Errors
    /// When one of them ends instead.
    async fn all_published(&mut self, progress: impl Fn(usize)) -> Result<(), Error> {
        let mut seen: Vec<_> = self.published.iter().map(|(_, seen)| seen.clone()).collect();
        let published = async {
            for (index, seen) in seen.iter_mut().enumerate() {
                // An error is the end of the instance, which the other branch tells.
                if seen.wait_for(Option::is_some).await.is_err() {
                    std::future::pending::<()>().await;
                }
                progress(index + 1);
            }
        };
        let ended = async {
            match self.tasks.join_next().await {
                Some(ended) => over(ended),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = published => Ok(()),
            error = ended => Err(error),
        }
    }

    async fn ended(&mut self) -> Error {
        match self.tasks.join_next().await {
            Some(ended) => over(ended),
            None => std::future::pending().await,
        }
    }
}

fn over(ended: Result<(String, Result<ExitStatus, RunError>), JoinError>) -> Error {
    match ended {
        Ok((name, Ok(status))) => Error::Ended(name, status),
        Ok((_, Err(error))) => error.into(),
        Err(error) => error.into(),
    }
}

/// For a dozen proxies and as many services at once, on a machine that is busy.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long a proxy may drain: there is nothing in flight once the load has stopped.
const PROXY_PATIENCE: Duration = Duration::from_secs(4);
/// The controller waits for the proxies' sockets to go, and they are gone by then.
const CONTROLLER_PATIENCE: Duration = Duration::from_secs(5);
