use std::fs;

use super::*;

const CONTROLLER: &str = r#"{"schema":"mesh.dev/controller/v1","api":"","pid":1,"trustDomain":"local","name":"a"}"#;

fn placed(port: &str) -> Placed {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(".mesh")).unwrap();
    fs::write(dir.path().join(".mesh/controller.json"), CONTROLLER).unwrap();
    let instance = Instance {
        port: Some(port.parse().unwrap()),
        upstreams: vec!["orders=7001".parse().unwrap(), "bank/card-payments:90=0".parse().unwrap()],
        token: Some("mesh1.secret".to_owned()),
        ..Instance::new("web", "shop")
    };
    instance.place(&Layout::new(dir.path())).unwrap()
}

#[test]
fn the_proxys_command_line_follows_the_contract_and_holds_no_token() {
    let mut placed = placed("8080/http2");
    placed.pod = "web-00abc".to_owned();
    placed.inbound.as_mut().unwrap().proxy_port = 20001;
    placed.upstreams[1].1 = 20002;
    let args: Vec<_> = placed
        .proxy_args(Path::new("/m/web.sock"), Path::new("/m/controller.json"))
        .into_iter()
        .map(|a| a.into_string().unwrap())
        .collect();
    assert_eq!(
        args.join(" "),
        "proxy --namespace shop --workload deploy/web --pod web-00abc --service-account web \
         --inbound 127.0.0.1:20001=127.0.0.1:8080/http2 --upstream shop/orders=127.0.0.1:7001 \
         --upstream bank/card-payments:90=127.0.0.1:20002 --admin 127.0.0.1:0 \
         --private-admin unix:/m/web.sock --controller-file /m/controller.json --exit-with-parent"
    );
    assert!(!args.iter().any(|arg| arg.contains("mesh1")));
}

#[test]
fn the_application_finds_its_port_and_its_upstreams() {
    let mut placed = placed("0");
    let inbound = placed.inbound.unwrap();
    assert!(inbound.app_port != 0 && inbound.proxy_port != 0 && inbound.service_port == 80);
    placed.pod = "web-00abc".to_owned();
    placed.upstreams[1].1 = 20002;
    let environment: Vec<_> = placed.environment().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let port = format!("PORT={}", inbound.app_port);
    let rest = ["ORDERS_ADDR=127.0.0.1:7001", "CARD_PAYMENTS_ADDR=127.0.0.1:20002", "MESH_POD=web-00abc"];
    assert_eq!(environment, [&[port.as_str()], &rest[..]].concat());
}

#[test]
fn ports_and_upstreams_say_what_they_should_have_been() {
    assert_eq!("8080/grpc".parse::<Port>().unwrap(), Port { number: 8080, protocol: Some(Protocol::Grpc) });
    for text in ["", "x", "70000", "80/udp", "80/"] {
        assert!(text.parse::<Port>().is_err(), "{text}");
    }
    assert_eq!("orders".parse::<Upstream>().unwrap().local_port, 0);
    for text in ["", "=1", "Orders=1", "orders=x", "a/b/c=1", "orders:0=1"] {
        assert!(text.parse::<Upstream>().is_err(), "{text}");
    }
}

#[test]
fn names_leave_room_for_the_pods_suffix() {
    let new = |name: &str| Instance { port: "80".parse().ok(), ..Instance::new(name, "shop") };
    assert!(matches!(Instance::new("web", "shop").check(), Err(Error::Nothing)));
    assert!(new(&"w".repeat(57)).check().is_ok());
    assert!(matches!(new(&"w".repeat(58)).check(), Err(Error::Long(_))));
    assert!(matches!(new("Web").check(), Err(Error::Name(_))));
    assert!(matches!(Instance { workload: "web".into(), ..new("web") }.check(), Err(Error::Workload(_))));
    assert_eq!(new("web").check().unwrap().to_string(), "shop/deploy/web");
}

#[test]
fn pods_of_one_name_differ() {
    use rand::{SeedableRng, rngs::StdRng};
    let mut rng = StdRng::seed_from_u64(7);
    let (one, two) = (pod_name("web", &mut rng), pod_name("web", &mut rng));
    assert_ne!(one, two);
    assert_eq!((one.len(), name::label(&one).is_ok()), (9, true));
}
