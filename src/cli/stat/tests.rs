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

/// The whole way of a figure: published in a proxy, served by its private socket, scraped, aggregated.
#[tokio::test(flavor = "local")]
async fn figures_arrive_from_a_proxy_as_they_were_recorded() {
    use std::rc::Rc;

    use tokio::{sync::watch, task::JoinSet};

    use crate::{
        model::metric::label,
        proxy::{admin, observe},
        query::scrape,
        rt::clock,
    };

    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(dir.path().join(".mesh/proxies")).expect("made");
    let address = format!("unix:{}", dir.path().join(".mesh/proxies/web-1.sock").display());
    let listener = admin::Listener::bind(&address.parse().expect("an address")).await.expect("bound");
    let (collector, feeds) = observe::channel(2);
    let (_ready, ready) = watch::channel(true);
    let info = [(label::NAMESPACE, "shop"), (label::WORKLOAD, "deploy/web"), (label::POD, "web-1")];
    let gauges = move || observe::Gauges { info: info.map(|(k, v)| (k, v.to_owned())).into(), ..Default::default() };
    let config = Box::new(|| Value::Null);
    let state = admin::State { collector, ready, gauges: Box::new(gauges), config, verbs: None };
    let mut tasks = JoinSet::new();
    tasks.spawn_local(admin::serve(admin::Server::Private, listener, Rc::new(state)));
    let now = clock::now();
    for (worker, feed) in feeds.into_iter().enumerate() {
        let observer = observe::Observer::new(now);
        let edge = observer.edge(observe::EdgeKey {
            direction: observe::Direction::Inbound,
            target: "8080".into(),
            peer: None,
            peer_id: None,
            tls: observe::Tls::NotMeshed,
        });
        // 1 to 100 ms over both workers, one failure in each.
        for millis in (1..=100).filter(|millis| millis % 2 == worker as u64) {
            let mut request = edge.request(observe::Protocol::Http1, now);
            request.response(if millis < 3 { 500 } else { 200 }, None);
            request.finish(now + Duration::from_millis(millis));
        }
        tasks.spawn_local(feed.serve(observer));
    }
    let view = scrape::local(dir.path(), Duration::from_secs(60)).await.expect("readable");
    let selectors = vec!["deploy/web".parse().expect("a selector")];
    let rows = aggregate::rows(&view, &Question { selectors, ..Question::default() }).expect("a sound question");
    assert_eq!((rows.len(), rows[0].totals.success, rows[0].totals.failure), (1, 98, 2));
    for (q, millis) in [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0)] {
        let found = rows[0].totals.latency(q).expect("samples").as_secs_f64() * 1000.0;
        assert!((found - millis).abs() <= 0.02 * millis, "{q}: {found} is not {millis}");
    }
}
