//! `mesh edges`: who talks to whom, in which protocol, and whether it is secured or why not.
//!
//! `-o json`, schema `mesh.dev/edges/v1`; a field may be added, none renamed or dropped:
//!
//! ```text
//! { "schema", "window": "1m", "window_seconds": 60,
//!   "edges": [ { "source": END, "destination": END,
//!                "protocol": "http1" | "http2" | "grpc" | "tls" | "opaque" | "unknown",
//!                "secured": true, "reason": null | "not_meshed" | …,     why it is not
//!                "client_id", "server_id": "spiffe://…" | null,
//!                "requests": 120, "connections": 2 } ],                  within the window; open now
//!   "unreachable": [ { "namespace", "pod", "error" } ] }
//! END = { "namespace", "kind", "name" } | { "address" }; null: a client that has no proxy to name it
//! ```

use std::{collections::BTreeMap, process::ExitCode};

use serde_json::{Value, json};

use super::{
    live::{self, Page},
    scope::{self, Output, Scope},
    table::Table,
    ui::Hinted,
};
use crate::{
    local::registry::Mesh,
    query::{
        View,
        edges::{self, Edge, End, Volume},
        select::{self, Selector},
    },
    units::duration,
};

const SCHEMA: &str = "mesh.dev/edges/v1";
const SECURED: &str = "√";

#[derive(Debug, clap::Args)]
#[command(
    about = "Who talks to whom, and whether it is secured",
    after_help = "Examples:\n  mesh edges\n  mesh edges deploy/web -o wide\n  mesh edges svc -t 5m"
)]
pub(super) struct Args {
    /// Only edges from or to these: KIND, KIND/NAME, or KIND NAME. po, svc and ns also say what the ends are shown as.
    #[arg(value_name = "KIND[/NAME]")]
    resources: Vec<String>,
    #[command(flatten)]
    scope: Scope,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let kinds = "kinds: deploy, sts, ds, rs, cronjob, job, po, svc, ns, all";
    let selectors = select::parse_all(&args.resources).map_err(|error| Hinted::new(error.to_string(), kinds))?;
    let scope = args.scope;
    runtime.block_on(async {
        let mesh = scope.mesh()?;
        if scope.watch {
            return live::repeat(scope.output != Output::Json, async || page(&mesh, &scope, &selectors).await).await;
        }
        live::once(&page(&mesh, &scope, &selectors).await?)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// One answer.
pub(super) async fn page(mesh: &Mesh, scope: &Scope, selectors: &[Selector]) -> anyhow::Result<Page> {
    let view = scope.view(mesh).await?;
    let edges = edges::edges(&view, selectors, scope.namespace.as_deref());
    Ok(render(&view, &edges, scope))
}

fn render(view: &View, edges: &BTreeMap<Edge, Volume>, scope: &Scope) -> Page {
    let mut notes = scope::missing(&view.unreachable);
    if edges.is_empty() {
        notes.push(format!("no traffic in the last {}", duration::format(scope.window)));
    }
    let text = match scope.output {
        Output::Json => format!("{:#}\n", to_json(view, edges, scope)),
        _ if edges.is_empty() => String::new(),
        output => to_table(edges, scope, output == Output::Wide),
    };
    Page { text, notes }
}

fn to_table(edges: &BTreeMap<Edge, Volume>, scope: &Scope, wide: bool) -> String {
    let ends = edges.keys().flat_map(|edge| [&edge.source, &edge.destination]);
    let with_namespaces = scope.shows_namespaces(ends.map(namespace).filter(|it| !it.is_empty()));
    let namespaces = ["SRC_NS", "DST_NS"].into_iter().filter(|_| with_namespaces);
    let ids = ["CLIENT_ID", "SERVER_ID"].into_iter().filter(|_| wide);
    let mut table = Table::new(["SRC", "DST"].into_iter().chain(namespaces).chain(["PROTOCOL", "SECURED"]).chain(ids));
    for edge in edges.keys() {
        let mut cells = vec![name(&edge.source), name(&edge.destination)];
        if with_namespaces {
            cells.extend([&edge.source, &edge.destination].map(|end| namespace(end).to_owned()));
        }
        let secured = if edge.is_secured() { SECURED.to_owned() } else { edge.tls.replace('_', " ") };
        cells.extend([edge.protocol.clone(), secured]);
        if wide {
            cells.extend([edge.client_id.clone(), edge.server_id.clone()]);
        }
        table.row(cells);
    }
    table.render()
}

fn name(end: &End) -> String {
    match end {
        End::Resource(resource) => resource.to_string(),
        End::Outside(address) => address.clone(),
    }
}

fn namespace(end: &End) -> &str {
    match end {
        End::Resource(resource) => &resource.namespace,
        End::Outside(_) => "",
    }
}

fn to_json(view: &View, edges: &BTreeMap<Edge, Volume>, scope: &Scope) -> Value {
    let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let edge = |(edge, volume): (&Edge, &Volume)| {
        json!({
            "source": end_to_json(&edge.source),
            "destination": end_to_json(&edge.destination),
            "protocol": edge.protocol,
            "secured": edge.is_secured(),
            "reason": (!edge.is_secured()).then_some(&edge.tls),
            "client_id": known(&edge.client_id),
            "server_id": known(&edge.server_id),
            "requests": volume.requests,
            "connections": volume.open,
        })
    };
    json!({
        "schema": SCHEMA,
        "window": duration::format(scope.window),
        "window_seconds": scope.window.as_secs_f64(),
        "edges": edges.iter().map(edge).collect::<Vec<_>>(),
        "unreachable": view.unreachable,
    })
}

fn end_to_json(end: &End) -> Value {
    match end {
        End::Resource(resource) => json!(resource),
        End::Outside(address) if address.is_empty() => Value::Null,
        End::Outside(address) => json!({ "address": address }),
    }
}

#[cfg(test)]
mod tests;
