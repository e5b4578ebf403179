//! `mesh demo`: the tables it promises, true numbers in them, and nothing left however it ends.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{condition::eventually, home::Home};

#[tokio::test]
async fn a_demo_that_is_asked_to_end_leaves_nothing() {
    for signal in [Signal::TERM, Signal::INT] {
        let home = Home::new();
        let mut demo = home.demo("demo", &[]).await;
        demo.signal(signal);
        assert_eq!(demo.end().await.code(), Some(0), "{}", demo.output());
        assert_eq!((home.processes(), home.entries()), (vec![], vec![]));
    }
}

#[tokio::test]
async fn a_demo_that_is_killed_leaves_nothing() {
    let home = Home::new();
    let mut demo = home.demo("demo", &[]).await;
    demo.signal(Signal::KILL);
    demo.end().await;
    home.is_clean().await;
}

#[tokio::test]
async fn two_demos_run_side_by_side() {
    let home = Home::new();
    let mut first = home.demo("demo", &[]).await;
    let second = home.start("second", &["demo", "--for", "10m"]);
    eventually("the second shop", async || second.output().contains("local mesh `demo-2`").then_some(())).await;
    let (_, said, code) = home.output(&["demo", "--name", "demo"]).await;
    assert_eq!((said.lines().next(), code), (Some("error: a local mesh named `demo` is running already"), Some(1)));
    second.signal(Signal::KILL);
    first.signal(Signal::TERM);
    first.end().await;
    home.is_clean().await;
}

#[tokio::test]
async fn every_part_may_die_and_is_started_again() {
    let home = Home::new();
    let mut demo = home.demo("demo", &[]).await;
    let parts: [&[&str]; 4] =
        [&["demo-service", "orders"], &["proxy", "--pod web-"], &["proxy", "--pod inventory-"], &["controller"]];
    for words in parts {
        let pid = home.process(words).await;
        let before = demo.output().matches("starting it again").count();
        kill_process(Pid::from_raw(pid.cast_signed()).expect("a process id"), Signal::KILL).expect("it runs");
        eventually(&format!("the restart of {words:?}"), async || {
            (demo.output().matches("starting it again").count() > before).then_some(())
        })
        .await;
    }
    for words in parts {
        home.process(words).await;
    }
    demo.signal(Signal::TERM);
    assert_eq!(demo.end().await.code(), Some(0), "{}", demo.output());
    assert_eq!((home.processes(), home.entries()), (vec![], vec![]));
}

#[tokio::test]
async fn after_its_time_both_tables_are_printed_and_every_edge_is_secured() {
    let home = Home::new();
    let (tables, said, code) = home.output(&["demo", "--for", "4s"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!((home.processes(), home.entries()), (vec![], vec![]));
    let (stat, edges) = tables.split_once("\n\n").expect("two tables");
    let rows: Vec<Vec<&str>> = stat.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let meshed: Vec<_> = rows.iter().map(|row| (row[0], row[1])).collect();
    let replicas = |name| if name == "payments" { "3/3" } else { "1/1" };
    let names = ["cart", "catalog-v1", "catalog-v2", "inventory", "load", "orders", "payments", "shipping", "web"];
    assert_eq!(meshed, names.map(|name| (name, replicas(name))), "{stat}");
    let secured: Vec<_> = edges.lines().skip(1).map(|line| line.trim_end().ends_with('√')).collect();
    assert!(secured.len() >= 9 && secured.iter().all(|secured| *secured), "{edges}");
}

#[tokio::test]
async fn the_numbers_are_those_of_the_loads_own_log() {
    let home = Home::new();
    let path = home.path().join(".report.json");
    let mut demo = home.demo("demo", &["--report", path.to_str().expect("text")]).await;
    let report = async |at_least: u64| {
        eventually("a newer report", async || {
            let report: Value = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
            (report["count"].as_u64()? >= at_least).then_some(report)
        })
        .await
    };
    let number = |value: &Value| value.as_f64().expect("a number");
    let before = report(300).await;
    let stat = ["stat", "deploy/load", "--to", "deploy/web", "-n", "shop", "-t", "10m", "-o", "json"];
    let (answer, said, code) = home.output(&stat).await;
    assert_eq!(code, Some(0), "{said}");
    let after = report(before["count"].as_u64().expect("a number") + 1).await;
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let row = &answer["rows"][0];
    for (ours, logs) in [("samples", "count"), ("failures", "failures")] {
        let (low, ours, high) = (number(&before[logs]), number(&row[ours]), number(&after[logs]));
        // The log is written once a second, and a call may end between the two looks at it.
        assert!(low - 2.0 <= ours && ours <= high + 65.0, "{logs}: {low} <= {ours} <= {high}");
    }
    // Not of exactly the same calls, and on a machine that may be busy.
    let p50 = number(&row["latency_ms"]["p50"]);
    let logs = [&before, &after].map(|report| number(&report["latency_ms"]["p50"]));
    let (low, high) = (logs[0].min(logs[1]) * 0.75, logs[0].max(logs[1]) * 1.1);
    assert!(low < p50 && p50 < high, "the median is {p50} ms, and the load saw {logs:?} ms");
    let success = number(&row["success"]);
    assert!((0.93..1.0).contains(&success) || number(&row["failures"]) == 0.0, "{success}");
    demo.signal(Signal::TERM);
    assert_eq!(demo.end().await.code(), Some(0), "{}", demo.output());
}
