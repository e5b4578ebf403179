//! The shop as a table: which instances run, whom they call, and the Services in front of them.

use std::{ffi::OsString, fmt::Write as _, path::Path};

use crate::local::instance::{Instance, Port, Protocol, Upstream};

pub(crate) const NAMESPACE: &str = "shop";
pub(super) const FRONT_END: &str = "web";
pub(super) const LOAD: &str = "load";

/// A workload of the shop.
struct Workload {
    name: &'static str,
    service: &'static str,
    /// `None`: it only calls.
    protocol: Option<Protocol>,
    calls: &'static [&'static str],
    /// One argument list a replica.
    replicas: &'static [&'static [&'static str]],
}

const SHOP: &[Workload] = &[
    Workload {
        name: FRONT_END,
        service: "web",
        protocol: Some(Protocol::Http),
        calls: &["orders", "catalog", "cart"],
        replicas: &[&["web", "--delay-ms=1"]],
    },
    Workload {
        name: "orders",
        service: "orders",
        protocol: Some(Protocol::Http),
        calls: &["payments", "shipping"],
        replicas: &[&["orders", "--delay-ms=2"]],
    },
    // The balancer has something to find out here: one of three takes ten times as long.
    Workload {
        name: "payments",
        service: "payments",
        protocol: Some(Protocol::Http),
        calls: &[],
        replicas: &[&["payments", "--delay-ms=4"], &["payments", "--delay-ms=4"], &["payments", "--delay-ms=40"]],
    },
    Workload {
        name: "shipping",
        service: "shipping",
        protocol: Some(Protocol::Http),
        calls: &[],
        replicas: &[&["shipping", "--delay-ms=8", "--fail-percent=5"]],
    },
    Workload {
        name: "catalog-v1",
        service: "catalog",
        protocol: Some(Protocol::Http),
        calls: &["inventory"],
        replicas: &[&["catalog", "--delay-ms=3", "--edition=v1"]],
    },
    Workload {
        name: "catalog-v2",
        service: "catalog",
        protocol: Some(Protocol::Http),
        calls: &["inventory"],
        replicas: &[&["catalog", "--delay-ms=5", "--edition=v2"]],
    },
    Workload {
        name: "inventory",
        service: "inventory",
        protocol: Some(Protocol::Grpc),
        calls: &[],
        replicas: &[&["inventory", "--delay-ms=2"]],
    },
    // Its Service says nothing of the protocol: that the server speaks first is for the proxies to find out.
    Workload { name: "cart", service: "cart", protocol: None, calls: &[], replicas: &[&["cart", "--delay-ms=1"]] },
    Workload { name: LOAD, service: "load", protocol: None, calls: &["web"], replicas: &[&["load"]] },
];

/// Every instance of the shop, the load last.
pub(super) fn instances(mesh: &Path, rate: u32, report: Option<&Path>) -> Vec<Instance> {
    let mut instances = Vec::new();
    for workload in SHOP {
        for args in workload.replicas {
            instances.push(workload.instance(mesh, args));
        }
    }
    if let Some(load) = instances.last_mut() {
        load.command.push(format!("--rate={rate}").into());
        if let Some(report) = report {
            load.command.extend(["--report".into(), report.as_os_str().to_owned()]);
        }
    }
    instances
}

impl Workload {
    fn has_port(&self) -> bool {
        self.name != LOAD
    }

    fn instance(&self, mesh: &Path, args: &[&str]) -> Instance {
        let command = [mesh.as_os_str().to_owned(), "demo-service".into()];
        let upstream = |target: &&str| Upstream { target: (*target).to_owned(), local_port: 0 };
        Instance {
            service: self.service.to_owned(),
            service_account: self.service.to_owned(),
            port: self.has_port().then_some(Port { number: 0, protocol: self.protocol }),
            upstreams: self.calls.iter().map(upstream).collect(),
            workers: Some(1),
            command: command.into_iter().chain(args.iter().map(OsString::from)).collect(),
            ..Instance::new(self.name, NAMESPACE)
        }
    }
}

/// The Services, as a person would have written them.
pub(super) fn services() -> String {
    let mut text =
        format!("# The shop of `mesh demo`.\napiVersion: v1\nkind: Namespace\nmetadata: {{ name: {NAMESPACE} }}\n");
    let mut seen = Vec::new();
    for workload in SHOP.iter().filter(|workload| workload.has_port()) {
        let (service, port) = (workload.service, SERVICE_PORT);
        if seen.contains(&service) {
            continue;
        }
        seen.push(service);
        let protocol = workload.protocol.map(|it| format!(", appProtocol: {}", it.app_protocol())).unwrap_or_default();
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{ name: {service}, namespace: {NAMESPACE} }}\n\
             spec: {{ ports: [ {{ port: {port}{protocol} }} ] }}\n"
        );
    }
    text
}

const SERVICE_PORT: u16 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shop_has_what_the_demo_promises() {
        let instances = instances(Path::new("/bin/mesh"), 60, Some(Path::new("/r.json")));
        let count = |workload: &str| instances.iter().filter(|it| it.workload == workload).count();
        assert_eq!((count("deploy/payments"), count("deploy/catalog-v1"), count("deploy/catalog-v2")), (3, 1, 1));
        assert!(instances.iter().all(|instance| instance.check().is_ok()));
        let load = instances.last().unwrap();
        assert_eq!(load.port, None);
        let command: Vec<_> = load.command.iter().map(|arg| arg.to_str().unwrap()).collect();
        assert_eq!(command, ["/bin/mesh", "demo-service", "load", "--rate=60", "--report", "/r.json"]);
    }

    #[test]
    fn every_service_is_written_once() {
        let text = services();
        assert_eq!(text.matches("kind: Service\n").count(), 7);
        assert!(text.contains("name: cart, namespace: shop }\nspec: { ports: [ { port: 80 } ] }\n"), "{text}");
        assert!(
            text.contains("name: inventory, namespace: shop }\nspec: { ports: [ { port: 80, appProtocol: grpc } ] }")
        );
    }
}
