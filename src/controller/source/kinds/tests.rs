//! Kubernetes objects as they are written, and what is kept of them.

use super::*;
use crate::yaml;

fn read_one(text: &str, settings: Settings) -> Resource {
    let mut found = yaml::documents("x.yaml", text, |document| read(document, settings)).unwrap();
    found.pop().unwrap()
}

#[test]
fn a_services_ports_have_their_protocol_from_annotation_then_app_protocol_then_default() {
    let text = r#"
apiVersion: v1
kind: Service
metadata: { name: db, annotations: { mesh.dev/opaque-ports: "7000-7001" } }
spec:
  clusterIP: 10.96.0.7
  clusterIPs: [10.96.0.7, "fd00::7"]
  ports:
  - { name: a, port: 7000, appProtocol: http }
  - { name: b, port: 3306 }
  - { name: c, port: 5432, appProtocol: kubernetes.io/h2c, targetPort: 5000 }
  - { name: dns, port: 53, protocol: UDP }
"#;
    for (default_opaque_ports, mysql) in [(true, ProtocolHint::Opaque), (false, ProtocolHint::Unknown)] {
        let Resource::Service(service) = read_one(text, Settings { default_opaque_ports }) else { panic!("a Service") };
        let ports: Vec<_> = service.ports.iter().map(|p| (p.port, p.target_port, p.protocol)).collect();
        let expected = [
            (7000, Some(7000), ProtocolHint::Opaque),
            (3306, Some(3306), mysql),
            (5432, Some(5000), ProtocolHint::Http2),
        ];
        assert_eq!(ports, expected);
        assert_eq!(service.cluster_ips.len(), 2);
        assert_eq!(service.name.namespace, "default");
    }
}

#[test]
fn a_slice_gives_the_addresses_that_are_ready() {
    let text = r#"
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  namespace: shop
  labels: { kubernetes.io/service-name: web }
  annotations: { mesh.dev/identity: "spiffe://local/ns/shop/sa/web", mesh.dev/socket: .mesh/proxies/web-1.sock }
addressType: IPv4
ports: [ { name: "8080", port: 34567, appProtocol: http } ]
endpoints:
- { addresses: [127.0.0.1], conditions: { ready: true }, targetRef: { kind: Pod, name: web-1, namespace: shop } }
- { addresses: [127.0.0.2], conditions: { ready: false } }
- { addresses: [127.0.0.3] }
"#;
    let Resource::Slice(slice) = read_one(text, Settings::default()) else { panic!("a slice") };
    let pods: Vec<_> = slice.endpoints.iter().map(|e| (e.ip.to_string(), e.pod.as_deref())).collect();
    assert_eq!(pods, [("127.0.0.1".into(), Some("web-1")), ("127.0.0.3".into(), None)]);
    assert_eq!(slice.ports, [SlicePort { name: "8080".into(), port: 34567, protocol: ProtocolHint::Http1 }]);
    assert_eq!(slice.socket.as_deref(), Some(std::path::Path::new(".mesh/proxies/web-1.sock")));
    assert_eq!(slice.service_name().map(|name| name.name), Some("web".into()));
}
