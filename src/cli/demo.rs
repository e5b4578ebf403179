//! `mesh demo`: a shop to look at, every hop meshed.

use std::{
    io::{self, IsTerminal},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::LocalSet;

use super::{
    edges,
    live::{self, Page},
    scope::Scope,
    stat, ui,
};
use crate::{
    local::{
        Mesh, Say,
        demo::{Demo, Error, Options, shop::NAMESPACE},
    },
    query::{aggregate::Question, select},
    rt::signal,
    units::duration,
};

#[derive(Debug, clap::Args)]
#[command(
    about = "Run a shop of small services in a mesh of its own",
    after_help = "Everything runs in this one executable; nothing is left when it ends."
)]
pub(super) struct Args {
    /// Show the tables after this time and end [default: 20s where stdout is not a terminal, else until Ctrl-C].
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
    duration: Option<Duration>,
    /// The mesh's name [default: the first free of demo, demo-2, …].
    #[arg(long)]
    name: Option<String>,
    /// Requests per second of the load.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Where the load keeps its own log of what it saw (JSON).
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let report = args.report.map(std::path::absolute).transpose().context("resolving --report")?;
    let options = Options { name: args.name, rate: args.rate, report };
    let duration = args.duration.or_else(|| (!io::stdout().is_terminal()).then_some(DEFAULT_DURATION));
    // Children are tied to the thread that starts them, so everything runs on this one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    LocalSet::new().block_on(&runtime, whole(&options, duration))?;
    Ok(ExitCode::SUCCESS)
}

/// Start, show, stop. What stops it early is a signal, or a part that cannot be kept running.
async fn whole(options: &Options, duration: Option<Duration>) -> anyhow::Result<()> {
    let bar = progress_bar();
    let say: Say = {
        let bar = bar.clone();
        Rc::new(move |line: &str| bar.suspend(|| ui::report(line)))
    };
    let mut demo = Demo::new(options.name.as_deref(), say).map_err(hinted)?;
    let mesh = demo.mesh().clone();
    let outcome = tokio::select! {
        outcome = start_and_show(&mut demo, &mesh, options, duration, &bar) => outcome,
        signal = signal::shutdown() => signal.map(drop).context("listening for signals"),
    };
    bar.finish_and_clear();
    // A second signal is impatience: what is still there is killed.
    let stopped = tokio::select! {
        stopped = demo.stop(outcome.is_err()) => stopped,
        _ = signal::shutdown() => Ok(()),
    };
    outcome?;
    Ok(stopped?)
}

async fn start_and_show(
    demo: &mut Demo,
    mesh: &Mesh,
    options: &Options,
    duration: Option<Duration>,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let progress = |up, parts| {
        bar.set_length(u64::try_from(parts).unwrap_or(u64::MAX));
        bar.set_position(u64::try_from(up).unwrap_or(u64::MAX));
    };
    let front_end = demo.start(options, progress).await.map_err(hinted)?;
    bar.finish_and_clear();
    introduce(mesh, front_end);
    tokio::select! {
        shown = show(mesh, front_end, duration) => shown,
        error = demo.failed() => Err(error.into()),
    }
}

fn introduce(mesh: &Mesh, front_end: SocketAddr) {
    let name = &mesh.name;
    ui::report(&format!("The shop is open at http://{front_end}/ in the local mesh `{name}`."));
    ui::report(&format!("Look at it with: mesh stat deploy -n {NAMESPACE} --local={name} -o json"));
}

/// The tables: once after `duration`, or again and again until Ctrl-C.
async fn show(mesh: &Mesh, front_end: SocketAddr, duration: Option<Duration>) -> anyhow::Result<()> {
    let Some(duration) = duration else {
        let title = format!("http://{front_end}/ in the local mesh `{}`; Ctrl-C ends it\n\n", mesh.name);
        let page = async || {
            let page = tables(mesh).await?;
            Ok(Page { text: title.clone() + &page.text, ..page })
        };
        return live::repeat(true, page).await.map(drop);
    };
    tokio::time::sleep(duration).await;
    live::once(&tables(mesh).await?)?;
    Ok(())
}

/// What `mesh stat deploy` and `mesh edges` print.
async fn tables(mesh: &Mesh) -> anyhow::Result<Page> {
    let scope = Scope { namespace: Some(NAMESPACE.to_owned()), ..Scope::everything(WINDOW) };
    let selectors = select::parse_all(&["deploy".to_owned()])?;
    let question = Question { selectors, namespace: scope.namespace.clone(), to: None, from: None };
    let (stat, edges) = tokio::try_join!(stat::page(mesh, &scope, &question), edges::page(mesh, &scope, &[]))?;
    // Both ask the same proxies: what one of them misses, the other mostly misses too.
    let mut notes = stat.notes;
    notes.extend(edges.notes.into_iter().filter(|note| !notes.contains(note)).collect::<Vec<_>>());
    Ok(Page { text: format!("{}\n{}", stat.text, edges.text), notes })
}

fn hinted(error: Error) -> anyhow::Error {
    match error {
        Error::Registry(error) => ui::local(error),
        error => error.into(),
    }
}

/// On stderr, and only where that is a terminal.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("starting the shop {bar:24} {pos}/{len}");
    ProgressBar::new(1).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// What the tables look back over.
const WINDOW: Duration = Duration::from_secs(60);
/// Where nobody watches.
const DEFAULT_DURATION: Duration = Duration::from_secs(20);
