//! What `stat` and `edges` have in common: which mesh and namespace, which window, and how it is shown.

use std::time::Duration;

use super::ui;
use crate::{
    local::registry::{self, Mesh},
    query::{Unreachable, View, scrape, window},
};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Scope {
    /// Only this namespace [default in a local mesh: all].
    #[arg(short, long, conflicts_with = "all_namespaces")]
    pub(super) namespace: Option<String>,
    /// All namespaces.
    #[arg(short = 'A', long)]
    pub(super) all_namespaces: bool,
    /// Which local mesh: its name, or its directory (with a `/`) [default: the only one running].
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true)]
    pub(super) local: Option<Option<String>>,
    /// The time to look back over, up to 10m.
    #[arg(short = 't', long = "time-window", default_value = window::DEFAULT, value_parser = window::parse)]
    pub(super) window: Duration,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
    /// Refresh every second until Ctrl-C.
    #[arg(short, long)]
    pub(super) watch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    Table,
    Wide,
    Json,
}

impl Scope {
    /// A mesh's whole, as `mesh demo` shows it.
    pub(super) fn everything(window: Duration) -> Self {
        Self { namespace: None, all_namespaces: false, local: None, window, output: Output::Table, watch: false }
    }

    /// The mesh that is asked.
    pub(super) fn mesh(&self) -> anyhow::Result<Mesh> {
        registry::find(self.local.as_ref().and_then(Option::as_deref)).map_err(ui::local)
    }

    /// Asks its proxies.
    pub(super) async fn view(&self, mesh: &Mesh) -> anyhow::Result<View> {
        scrape::local(&mesh.dir, self.window)
            .await
            .map_err(|error| anyhow::Error::new(error).context(format!("reading {}", mesh.dir.display())))
    }

    /// Whether namespaces are worth columns: asked for, or there are several.
    pub(super) fn shows_namespaces<'a>(&self, namespaces: impl IntoIterator<Item = &'a str>) -> bool {
        let mut namespaces = namespaces.into_iter();
        let first = namespaces.next();
        self.all_namespaces || namespaces.any(|it| Some(it) != first)
    }
}

/// Names some missing proxies and counts the rest.
pub(super) fn missing(unreachable: &[Unreachable]) -> Vec<String> {
    const NAMED: usize = 5;
    let name = |it: &Unreachable| format!("warning: no figures of {}: {}", it.pod, it.error);
    let rest = unreachable.len().saturating_sub(NAMED);
    let rest = (rest > 0).then(|| format!("warning: … and of {rest} more"));
    unreachable.iter().take(NAMED).map(name).chain(rest).collect()
}
