//! What a person, and a machine, sees of the edges of the small mesh of `query::aggregate`'s tests.

use std::time::Duration;

use super::*;
use crate::query::aggregate::tests::shop;

const SNAPSHOTS: &str = "../../../tests/snapshots";

fn shown(output: Output) -> Page {
    let scope = Scope { output, ..Scope::everything(Duration::from_secs(60)) };
    let view = shop();
    render(&view, &edges::edges(&view, &[], None), &scope)
}

#[test]
fn a_table_says_what_is_secured_and_why_the_rest_is_not() {
    insta::assert_snapshot!(shown(Output::Table).text, @r"
    SRC          DST             PROTOCOL   SECURED
    deploy/web   deploy/orders   http1      √
    deploy/web   10.0.0.9:443    http1      not meshed
    -            deploy/web      http1      not meshed
    ");
}

#[test]
fn wide_names_the_identities() {
    insta::assert_snapshot!(shown(Output::Wide).text, @r"
    SRC          DST             PROTOCOL   SECURED      CLIENT_ID                       SERVER_ID
    deploy/web   deploy/orders   http1      √            spiffe://local/ns/shop/sa/web   spiffe://local/ns/shop/sa/orders
    deploy/web   10.0.0.9:443    http1      not meshed   -                               -
    -            deploy/web      http1      not meshed   -                               -
    ");
}

#[test]
fn json_is_the_schema_of_the_module_docs() {
    insta::with_settings!({ snapshot_path => SNAPSHOTS }, {
        insta::assert_snapshot!(shown(Output::Json).text);
    });
}

#[test]
fn without_edges_there_is_a_note_and_not_an_error() {
    let page = render(&View::default(), &BTreeMap::new(), &Scope::everything(Duration::from_secs(60)));
    assert_eq!(page, Page { text: String::new(), notes: vec!["no traffic in the last 1m".to_owned()] });
}
