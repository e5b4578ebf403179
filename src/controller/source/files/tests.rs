//! Files come, break, heal and go.

use super::*;
use crate::controller::source::Name;

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\nspec: {{ ports: [{{ port: {port} }}] }}\n"
    )
}

fn key(name: &str) -> Key {
    Key::Service(Name { namespace: "shop".into(), name: name.into() })
}

/// The change in short: the name, and the port it has now.
fn short(changes: &[Change]) -> Vec<(Key, Option<u16>)> {
    let one = |change: &Change| match change {
        Change::Apply(Resource::Service(service)) => (key(&service.name.name), Some(service.ports[0].port)),
        Change::Apply(Resource::Slice(_)) => panic!("no slices here"),
        Change::Delete(key) => (key.clone(), None),
    };
    changes.iter().map(one).collect()
}

fn write(files: &mut Files, path: &str, text: &str) -> Vec<(Key, Option<u16>)> {
    short(&files.write(Path::new(path), text).0)
}

#[test]
fn a_file_is_the_difference_to_what_it_was() {
    let mut files = Files::default();
    let both = format!("{}---\n{}", service("a", 1), service("b", 2));
    assert_eq!(write(&mut files, "x.yaml", &both), [(key("a"), Some(1)), (key("b"), Some(2))]);
    assert_eq!(write(&mut files, "x.yaml", &both), []);
    assert_eq!(write(&mut files, "x.yaml", &service("b", 3)), [(key("a"), None), (key("b"), Some(3))]);
    assert_eq!(short(&files.remove(Path::new("x.yaml"))), [(key("b"), None)]);
    assert!(files.owners.is_empty());
}

#[test]
fn a_broken_file_keeps_its_last_state_and_is_reported_once() {
    let mut files = Files::default();
    write(&mut files, "x.yaml", &service("a", 1));
    let broken = format!(
        "{}---\napiVersion: v1\nkind: Service\nmetadata: {{ name: b }}\nspec:\n  ports: [{{ port: high }}]\n",
        service("a", 9)
    );
    let (changes, error) = files.write(Path::new("x.yaml"), &broken);
    assert_eq!(changes, []);
    assert_eq!(error.map(|e| (e.file, e.line)), Some(("x.yaml".into(), 10)));
    assert_eq!(files.write(Path::new("x.yaml"), &broken), (Vec::new(), None));
    assert_eq!(files.errors().count(), 1);
    assert_eq!(write(&mut files, "x.yaml", &service("a", 2)), [(key("a"), Some(2))]);
    assert_eq!(files.errors().count(), 0);
}

#[test]
fn of_an_object_in_two_files_the_first_counts_and_the_other_stands_in() {
    let mut files = Files::default();
    write(&mut files, "b.yaml", &service("a", 2));
    assert_eq!(write(&mut files, "a.yaml", &service("a", 1)), [(key("a"), Some(1))]);
    assert_eq!(write(&mut files, "b.yaml", &service("a", 3)), []);
    assert_eq!(short(&files.remove(Path::new("a.yaml"))), [(key("a"), Some(3))]);
    assert_eq!(write(&mut files, "c.yaml", &service("a", 4)), []);
    assert_eq!(short(&files.remove(Path::new("c.yaml"))), []);
    let twice = format!("{}---\n{}", service("z", 1), service("z", 2));
    let (_, error) = files.write(Path::new("d.yaml"), &twice);
    assert_eq!(error.map(|e| e.line), Some(6));
}

#[test]
fn mistakes_are_named_with_their_line() {
    let cases = [
        ("kind: Service\nmetadata: { name: a }\n", 1, "apiVersion"),
        ("# x\n\napiVersion: v1\nkind: Service\nspec: { ports: [] }\n", 3, "metadata.name"),
        ("apiVersion: v1\nkind: Service\nmetadata: { name: a }\nspec: { ports: [{ port: 70000 }] }\n", 1, "70000"),
        (
            "apiVersion: v1\nkind: Service\nmetadata: { name: a, annotations: { mesh.dev/opaque-ports: \"1,x\" } }\n",
            1,
            "`x`",
        ),
        (
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: { name: a, annotations: { \
             mesh.dev/socket: ../x } }\naddressType: IPv4\nendpoints: []\n",
            1,
            "within the source directory",
        ),
        (
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: { name: a }\naddressType: \
             IPv4\nendpoints: [{ addresses: [here] }]\n",
            1,
            "`here`",
        ),
    ];
    for (text, line, says) in cases {
        let error = Files::default().write(Path::new("x.yaml"), text).1.expect(says);
        assert!(error.line == line && error.message.contains(says), "{error}");
    }
}

#[test]
fn kinds_that_are_not_ours_are_left_alone() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: a }\n---\napiVersion: v1\nkind: Namespace\n";
    assert_eq!(Files::default().write(Path::new("x.yaml"), text), (Vec::new(), None));
}
