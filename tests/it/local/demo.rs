//! `mesh demo`: the tables it promises, true numbers in them, and nothing left however it ends.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{condition::eventually, home::Home, process::Process};

async fn open(home: &Home, name: &str, arguments: &[&str]) -> Process {
    let mut demo = home.start(name, &[&["demo", "--for", "10m", "--name", name], arguments].concat());
    eventually("the open shop", async || {
        demo.check();
        demo.output().contains("The shop is open").then_some(())
    })
    .await;
    demo
}

#[tokio::test]
async fn a_demo_that_is_asked_to_end_leaves_nothing() {
    for signal in [Signal::TERM, Signal::INT] {
        let home = Home::new();
        let mut demo = open(&home, "demo", &[]).await;
        demo.signal(signal);
        assert_eq!(demo.end().await.code(), Some(0), "{}", demo.output());
        assert_eq!((home.processes(), home.entries()), (vec![], vec![]));
    }
}

#[tokio::test]
async fn a_demo_that_is_killed_leaves_nothing() {
    let home = Home::new();
    let mut demo = open(&home, "demo", &[]).await;
    demo.signal(Signal::KILL);
    demo.end().await;
    home.is_clean().await;
}

#[tokio::test]
async fn two_demos_run_side_by_side() {
    let home = Home::new();
    let mut first = open(&home, "demo", &[]).await;
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
    let mut demo = open(&home, "demo", &[]).await;
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
async fn the_load_sees_a_shop_that_mostly_works() {
    let home = Home::new();
    let report = home.path().join(".report.json");
    let (_, said, code) = home.output(&["demo", "--for", "5s", "--report", report.to_str().expect("text")]).await;
    assert_eq!(code, Some(0), "{said}");
    let report: Value = serde_json::from_slice(&fs::read(&report).expect("a report")).expect("JSON");
    let (count, failures) =
        (report["count"].as_u64().expect("a number"), report["failures"].as_u64().expect("a number"));
    assert!(count > 200, "{count} calls, {said}");
    // One of twenty purchases fails, and three of ten calls are purchases.
    assert!(failures * 10 < count, "{failures} of {count} failed");
    home.is_clean().await;
}
