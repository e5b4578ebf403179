//! The EndpointSlice file by which the controller knows of an instance: there while its proxy is ready and its
//! application accepts.

use std::{
    convert::Infallible,
    fs,
    io::{self, Write},
    path::PathBuf,
};

use tokio::sync::watch;

use super::{
    Published,
    instance::{Placed, loopback},
    layout::Layout,
};

#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub(crate) struct Error {
    path: PathBuf,
    source: io::Error,
}

/// Writes and removes the file as the two sides come and go. Never ends but by an error.
pub(super) async fn keep(
    placed: &Placed,
    layout: &Layout,
    mut proxy: watch::Receiver<bool>,
    mut app: watch::Receiver<bool>,
    published: watch::Sender<Option<Published>>,
) -> Result<Infallible, Error> {
    loop {
        let wanted = *proxy.borrow_and_update() && *app.borrow_and_update();
        if wanted != published.borrow().is_some() {
            if wanted {
                write(placed, layout)?;
            } else {
                remove(placed, layout)?;
            }
            let inbound = placed.inbound.map(|inbound| loopback(inbound.proxy_port));
            published.send_replace(wanted.then(|| Published { pod: placed.pod.clone(), inbound }));
        }
        let changed = async {
            tokio::select! { change = proxy.changed() => change, change = app.changed() => change }
        };
        if changed.await.is_err() {
            // Both sides report for as long as they run, and whoever runs this ends it with them.
            std::future::pending::<()>().await;
        }
    }
}

/// Whole or not at all: readers never see half a file.
fn write(placed: &Placed, layout: &Layout) -> Result<(), Error> {
    let path = layout.slice(&placed.pod);
    let write = || {
        fs::create_dir_all(layout.endpoints())?;
        // Made outside the part that the controller watches, on the same file system.
        let mut file = tempfile::NamedTempFile::new_in(layout.inner())?;
        file.write_all(render(placed).as_bytes())?;
        file.persist(&path)?;
        Ok(())
    };
    write().map_err(|source| Error { path: path.clone(), source })
}

pub(super) fn remove(placed: &Placed, layout: &Layout) -> Result<(), Error> {
    let path = layout.slice(&placed.pod);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error { path, source }),
        _ => Ok(()),
    }
}

/// The file's text. Every value is quoted, so that a service may be called `on` or `1`.
fn render(placed: &Placed) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let (pod, namespace) = (quoted(&placed.pod), quoted(&placed.instance.namespace));
    let (labels, ports) = match placed.inbound {
        // Nobody calls it, but its proxy has numbers to ask for.
        None => ("{}".to_owned(), "[]".to_owned()),
        Some(inbound) => {
            let service = quoted(&placed.instance.service);
            let protocol = inbound.protocol.map(|it| format!(", appProtocol: {}", quoted(it.app_protocol())));
            let name = quoted(&inbound.service_port.to_string());
            let port = format!("{{ name: {name}, port: {}{} }}", inbound.proxy_port, protocol.unwrap_or_default());
            (format!("{{ kubernetes.io/service-name: {service} }}"), format!("[ {port} ]"))
        }
    };
    let identity = quoted(&placed.identity.to_string());
    let workload = quoted(&placed.workload.to_string());
    let socket = quoted(&Layout::relative_proxy_socket(&placed.pod).to_string_lossy());
    format!(
        "# Written by mesh, which removes it when the instance ends.
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {pod}
  namespace: {namespace}
  labels: {labels}
  annotations:
    mesh.dev/identity: {identity}
    mesh.dev/workload: {workload}
    mesh.dev/socket: {socket}
addressType: IPv4
ports: {ports}
endpoints:
  - addresses: [127.0.0.1]
    conditions: {{ ready: true }}
    targetRef: {{ kind: Pod, name: {pod}, namespace: {namespace} }}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        local::instance::{Inbound, Instance, Protocol, Reservations},
        model::identity::SpiffeId,
    };

    fn placed(inbound: Option<Inbound>) -> Placed {
        let instance = Instance::new("on", "shop");
        Placed {
            pod: "on-00abc".to_owned(),
            workload: "shop/deploy/on".parse().unwrap(),
            identity: SpiffeId::new("local", "shop", "on"),
            inbound,
            upstreams: Vec::new(),
            reserved: Reservations::default(),
            instance,
        }
    }

    #[test]
    fn a_slice_is_what_the_controller_reads() {
        let inbound = Inbound { app_port: 8080, proxy_port: 20001, service_port: 80, protocol: Some(Protocol::Http2) };
        let text = render(&placed(Some(inbound)));
        insta::assert_snapshot!(text, @r#"
        # Written by mesh, which removes it when the instance ends.
        apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata:
          name: "on-00abc"
          namespace: "shop"
          labels: { kubernetes.io/service-name: "on" }
          annotations:
            mesh.dev/identity: "spiffe://local/ns/shop/sa/on"
            mesh.dev/workload: "shop/deploy/on"
            mesh.dev/socket: ".mesh/proxies/on-00abc.sock"
        addressType: IPv4
        ports: [ { name: "80", port: 20001, appProtocol: "kubernetes.io/h2c" } ]
        endpoints:
          - addresses: [127.0.0.1]
            conditions: { ready: true }
            targetRef: { kind: Pod, name: "on-00abc", namespace: "shop" }
        "#);
    }

    #[test]
    fn an_instance_that_only_calls_belongs_to_no_service() {
        let text = render(&placed(None));
        assert!(text.contains("labels: {}\n") && text.contains("ports: []\n"), "{text}");
    }

    #[tokio::test]
    async fn the_file_is_there_only_while_both_sides_are_up() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".mesh")).unwrap();
        let (layout, placed) = (Layout::new(dir.path()), placed(None));
        let path = layout.slice(&placed.pod);
        let (proxy, proxy_seen) = watch::channel(false);
        let (app, app_seen) = watch::channel(false);
        let (published, mut seen) = watch::channel(None);
        let script = async {
            proxy.send_replace(true);
            tokio::task::yield_now().await;
            assert!(!path.exists());
            app.send_replace(true);
            seen.wait_for(Option::is_some).await.unwrap();
            assert!(path.exists());
            proxy.send_replace(false);
            seen.wait_for(Option::is_none).await.unwrap();
            assert!(!path.exists());
        };
        tokio::select! {
            failed = keep(&placed, &layout, proxy_seen, app_seen, published) => match failed.unwrap() {},
            () = script => {}
        }
        assert_eq!(fs::read_dir(dir.path().join(".mesh")).unwrap().count(), 0);
    }
}
