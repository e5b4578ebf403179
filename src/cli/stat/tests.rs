//! What a person, and a machine, sees of the small mesh of `query::aggregate`'s tests.

use std::time::Duration;

use super::*;
use crate::query::aggregate::tests::shop;

const SNAPSHOTS: &str = "../../../tests/snapshots";

fn shown(resources: &[&str], output: Output) -> Page {
    let scope = Scope { output, ..Scope::everything(Duration::from_secs(60)) };
    let selectors = resources.iter().map(|it| it.parse().expect("a selector")).collect();
    let view = shop();
    let rows = aggregate::rows(&view, &Question { selectors, ..Question::default() }).expect("a sound question");
    render(&view, &rows, &scope)
}

#[test]
fn a_table_says_what_was_received_and_whose_figures_are_missing() {
    let page = shown(&["deploy"], Output::Table);
    assert_eq!(page.notes, ["warning: no figures of orders-3: gone"]);
    insta::assert_snapshot!(page.text, @r"
    NAME     MESHED   SUCCESS   RPS      LATENCY_P50   LATENCY_P95   LATENCY_P99   TCP_CONN
    orders   2/3      83.33%    2.0rps   5ms           5ms           5ms           4
    web      1/1      100.00%   1.0rps   5ms           5ms           5ms           2
    ");
}

#[test]
fn several_kinds_are_told_apart_by_name() {
    insta::assert_snapshot!(shown(&["deploy", "svc"], Output::Wide).text, @r"
    NAME            MESHED   SUCCESS   RPS      LATENCY_P50   LATENCY_P95   LATENCY_P99   TCP_CONN   SAMPLES   READ_BYTES/SEC   WRITE_BYTES/SEC
    deploy/orders   2/3      83.33%    2.0rps   5ms           5ms           5ms           4          120       -                -
    deploy/web      1/1      100.00%   1.0rps   5ms           5ms           5ms           2          60        -                -
    svc/orders      2/3      83.33%    2.0rps   5ms           5ms           5ms           2          120       -                -
    svc/web         1/1      -         -        -             -             -             -          0         -                -
    ");
}

#[test]
fn json_is_the_schema_of_the_module_docs() {
    insta::with_settings!({ snapshot_path => SNAPSHOTS }, {
        insta::assert_snapshot!(shown(&["deploy"], Output::Json).text);
    });
}

#[test]
fn without_traffic_there_is_a_note_and_not_an_error() {
    let page = shown(&["sts"], Output::Table);
    assert_eq!((page.text.as_str(), page.notes.last().map(String::as_str)), ("", Some("no traffic in the last 1m")));
}

#[test]
fn namespaces_get_a_column_when_there_are_several() {
    let mut view = shop();
    let elsewhere = "other/deploy/jobs".parse().ok();
    view.pods[0].0.workload = elsewhere;
    let question = Question { selectors: vec!["deploy".parse().expect("a selector")], ..Question::default() };
    let rows = aggregate::rows(&view, &question).expect("a sound question");
    insta::assert_snapshot!(render(&view, &rows, &Scope::everything(Duration::from_secs(60))).text, @r"
    NAMESPACE   NAME     MESHED   SUCCESS   RPS      LATENCY_P50   LATENCY_P95   LATENCY_P99   TCP_CONN
    other       jobs     1/1      100.00%   1.0rps   5ms           5ms           5ms           2
    shop        orders   2/3      83.33%    2.0rps   5ms           5ms           5ms           4
    ");
}
