//! `mesh stat`: success rate, requests a second and latency, as the proxies counted them within the window.
//!
//! `-o json`, schema `mesh.dev/stat/v1`; a field may be added, none renamed or dropped:
//!
//! ```text
//! { "schema", "window": "1m", "window_seconds": 60,
//!   "rows": [ { "namespace", "kind": "deploy", "name",
//!               "meshed": 2, "pods": 3,              proxies that answered, of the pods there are
//!               "covered_seconds": 60.4,             what rates are over
//!               "samples": 120, "failures": 6,       requests ended within the window
//!               "success": 0.95 | null,              0..1; null without requests
//!               "rps": 1.99,
//!               "latency_ms": { "p50", "p95", "p99" } | null,
//!               "tcp": { "open", "opened", "read_bytes", "written_bytes",
//!                        "read_bytes_per_second", "written_bytes_per_second" } } ],
//!   "unreachable": [ { "namespace", "pod", "error" } ] }
//! ```

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{
    live::{self, Page},
    scope::{self, Output, Scope},
    table::{self, NONE, Table},
    ui::Hinted,
};
use crate::{
    local::registry::Mesh,
    query::{
        View,
        aggregate::{self, Party, Question, Row},
        select::{self, Selector},
    },
    units::duration,
};

const SCHEMA: &str = "mesh.dev/stat/v1";
const HEADERS: [&str; 8] =
    ["NAME", "MESHED", "SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99", "TCP_CONN"];
const WIDE: [&str; 3] = ["SAMPLES", "READ_BYTES/SEC", "WRITE_BYTES/SEC"];

#[derive(Debug, clap::Args)]
#[command(
    about = "Success rate, requests a second and latency",
    after_help = "Kinds: deploy, sts, ds, rs, cronjob, job, po, svc, ns; all.\n\n\
                  Examples:\n  mesh stat\n  mesh stat deploy/web --to svc/orders -t 5m\n  mesh stat svc -o wide -w"
)]
pub(super) struct Args {
    /// KIND, KIND/NAME, or KIND NAME.
    #[arg(value_name = "KIND[/NAME]", default_value = "deploy")]
    resources: Vec<String>,
    /// What they sent to this, instead of what they received.
    #[arg(long, value_name = "KIND[/NAME]", conflicts_with = "from")]
    to: Option<Selector>,
    /// The namespace of --to [default: any].
    #[arg(long, requires = "to")]
    to_namespace: Option<String>,
    /// What this sent to them.
    #[arg(long, value_name = "KIND[/NAME]")]
    from: Option<Selector>,
    /// The namespace of --from [default: any].
    #[arg(long, requires = "from")]
    from_namespace: Option<String>,
    #[command(flatten)]
    scope: Scope,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (question, scope) = args.question()?;
    runtime.block_on(async {
        let mesh = scope.mesh()?;
        if scope.watch {
            return live::repeat(scope.output != Output::Json, async || page(&mesh, &scope, &question).await).await;
        }
        live::once(&page(&mesh, &scope, &question).await?)?;
        Ok(ExitCode::SUCCESS)
    })
}

impl Args {
    fn question(self) -> anyhow::Result<(Question, Scope)> {
        let kinds = "kinds: deploy, sts, ds, rs, cronjob, job, po, svc, ns, all";
        let selectors = select::parse_all(&self.resources).map_err(|error| Hinted::new(error.to_string(), kinds))?;
        let party = |selector: Option<Selector>, namespace| selector.map(|selector| Party { selector, namespace });
        let question = Question {
            selectors,
            namespace: self.scope.namespace.clone(),
            to: party(self.to, self.to_namespace),
            from: party(self.from, self.from_namespace),
        };
        Ok((question, self.scope))
    }
}

/// One answer.
pub(super) async fn page(mesh: &Mesh, scope: &Scope, question: &Question) -> anyhow::Result<Page> {
    let view = scope.view(mesh).await?;
    let rows = aggregate::rows(&view, question)?;
    Ok(render(&view, &rows, scope))
}

fn render(view: &View, rows: &[Row], scope: &Scope) -> Page {
    let mut notes = scope::missing(&view.unreachable);
    if rows.is_empty() && view.unreachable.is_empty() {
        notes.push("nothing in the mesh matches (`mesh stat all` lists what there is)".to_owned());
    } else if !rows.iter().any(|row| row.totals.has_traffic()) {
        notes.push(format!("no traffic in the last {}", duration::format(scope.window)));
    }
    let text = match scope.output {
        Output::Json => format!("{:#}\n", to_json(view, rows, scope)),
        _ if rows.is_empty() => String::new(),
        output => to_table(rows, scope, output == Output::Wide),
    };
    Page { text, notes }
}

fn to_table(rows: &[Row], scope: &Scope, wide: bool) -> String {
    let with_namespace = scope.shows_namespaces(rows.iter().map(|row| row.resource.namespace.as_str()));
    let with_kind = rows.iter().any(|row| row.resource.kind != rows[0].resource.kind);
    let headers = with_namespace.then_some("NAMESPACE").into_iter().chain(HEADERS);
    let mut table = Table::new(headers.chain(WIDE.into_iter().filter(|_| wide)));
    for row in rows {
        let name = if with_kind { row.resource.to_string() } else { row.resource.name.clone() };
        let namespace = with_namespace.then(|| row.resource.namespace.clone());
        let wide = wide.then(|| wide_cells(row)).into_iter().flatten();
        table.row(namespace.into_iter().chain([name]).chain(cells(row)).chain(wide));
    }
    table.render()
}

fn cells(row: &Row) -> [String; 7] {
    let totals = &row.totals;
    let or_none = |figure: Option<String>| figure.unwrap_or_else(|| NONE.to_owned());
    let latency = |q| or_none(totals.latency(q).map(table::latency));
    [
        format!("{}/{}", row.meshed, row.pods),
        or_none(totals.success_rate().map(table::percent)),
        or_none((totals.requests() > 0).then(|| table::rate(row.covered.rate(totals.requests())))),
        latency(0.5),
        latency(0.95),
        latency(0.99),
        or_none(totals.has_traffic().then(|| totals.tcp.open.to_string())),
    ]
}

fn wide_cells(row: &Row) -> [String; 3] {
    let rate = |bytes: u64| if bytes > 0 { table::byte_rate(row.covered.rate(bytes)) } else { NONE.to_owned() };
    [row.totals.requests().to_string(), rate(row.totals.tcp.read), rate(row.totals.tcp.written)]
}

fn to_json(view: &View, rows: &[Row], scope: &Scope) -> Value {
    json!({
        "schema": SCHEMA,
        "window": duration::format(scope.window),
        "window_seconds": scope.window.as_secs_f64(),
        "rows": rows.iter().map(row_to_json).collect::<Vec<_>>(),
        "unreachable": view.unreachable,
    })
}

fn row_to_json(row: &Row) -> Value {
    let totals = &row.totals;
    let ms = |q| totals.latency(q).map(|latency| latency.as_micros() as f64 / 1000.0);
    let latency = (totals.latency(0.5).is_some()).then(|| json!({ "p50": ms(0.5), "p95": ms(0.95), "p99": ms(0.99) }));
    json!({
        "namespace": row.resource.namespace,
        "kind": row.resource.kind,
        "name": row.resource.name,
        "meshed": row.meshed,
        "pods": row.pods,
        "covered_seconds": row.covered.seconds(),
        "samples": totals.requests(),
        "failures": totals.failure,
        "success": totals.success_rate(),
        "rps": row.covered.rate(totals.requests()),
        "latency_ms": latency,
        "tcp": {
            "open": totals.tcp.open,
            "opened": totals.tcp.opened,
            "read_bytes": totals.tcp.read,
            "written_bytes": totals.tcp.written,
            "read_bytes_per_second": row.covered.rate(totals.tcp.read),
            "written_bytes_per_second": row.covered.rate(totals.tcp.written),
        },
    })
}

#[cfg(test)]
mod tests;
