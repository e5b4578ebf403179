//! What the proxies have seen, asked of themselves: `stat` and `edges` without a metrics store.
//!
//! ```text
//! pods        which pods there are and where their proxies' private sockets lie
//! scrape      asks them all for the window, with a deadline          -> View
//! decode      one proxy's exposition                                 -> Report
//! aggregate   a question over a view                                 -> Row       edges -> Edge
//! quantile    sparse buckets                                         -> latency
//! window      the asked window, and rates over what was covered of it
//! select      KIND/NAME as kubectl writes it
//! ```

pub(crate) mod aggregate;
pub(crate) mod decode;
pub(crate) mod edges;
pub(crate) mod pods;
pub(crate) mod quantile;
pub(crate) mod scrape;
pub(crate) mod select;
pub(crate) mod window;

/// What was found: every pod, with the report of its proxy where that answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) pods: Vec<(pods::Pod, Option<decode::Report>)>,
    pub(crate) unreachable: Vec<Unreachable>,
}

/// A proxy whose figures are missing, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Unreachable {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) error: String,
}
