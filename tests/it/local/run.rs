//! `mesh run`: the process's signals and exit code, its place in the mesh, and its end.

use std::{fs, path::PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::Command;

use crate::support::{condition::eventually, home::Home, mesh::Mesh, process::Process, require};

/// `mesh run` of a shell script that only calls others.
fn script<'a>(mesh: &'a str, text: &'a str) -> Vec<&'a str> {
    vec!["run", "--name", "job", "--upstream", "orders=0", mesh, "--", "sh", "-c", text]
}

fn local(mesh: &Mesh) -> String {
    format!("--local={}/", mesh.path().display())
}

async fn slices(mesh: &Mesh, count: usize) -> Vec<PathBuf> {
    eventually(&format!("{count} endpoint slices"), async || {
        let entries = fs::read_dir(mesh.path().join("endpoints")).expect("a directory").flatten();
        let paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        (paths.len() == count).then_some(paths)
    })
    .await
}

#[tokio::test]
async fn a_program_ends_with_the_process_that_asked_for_it() {
    let home = Home::new();
    let shell = "exec 3>&1; $0 exec-with-parent --parent $$ -- sleep 600 & wait";
    let mut command = Command::new("sh");
    command.args(["-c", shell, env!("CARGO_BIN_EXE_mesh")]).env("MESH_LOCAL_DIR", home.path());
    let logs = tempfile::tempdir().expect("a directory");
    let mut parent = Process::start("parent", logs.path(), &mut command);
    home.process(&["sleep 600"]).await;
    parent.signal(Signal::KILL);
    parent.end().await;
    home.is_clean().await;
}

#[tokio::test]
async fn the_exit_code_of_the_process_is_passed_through() {
    let (home, mesh) = (Home::new(), Mesh::local().await);
    for (text, code) in [("exit 0", 0), ("exit 42", 42), ("kill -TERM $$", 143), ("kill -9 $$", 137)] {
        let (_, said, ended) = home.output(&script(&local(&mesh), text)).await;
        assert_eq!(ended, Some(code), "{text}: {said}");
    }
    slices(&mesh, 0).await;
    home.is_clean().await;
}

#[tokio::test]
async fn signals_are_passed_on() {
    let (home, mesh) = (Home::new(), Mesh::local().await);
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP"), (Signal::USR1, "USR1")] {
        let text = format!("trap 'exit 17' {name}; echo set; while :; do sleep 0.02; done");
        let mut run = home.start(name, &script(&local(&mesh), &text));
        eventually("the trap", async || run.output().contains("set").then_some(())).await;
        run.signal(signal);
        assert_eq!(run.end().await.code(), Some(17), "{name}");
    }
    home.is_clean().await;
}

#[tokio::test]
async fn the_process_finds_its_port_its_upstreams_and_no_token() {
    let (home, mesh) = (Home::new(), Mesh::local().await);
    let text = "env | grep -E '^(PORT|ORDERS_ADDR|CARD_PAYMENTS_ADDR|MESH_POD|MESH_JOIN_TOKEN)=' | sort";
    let local = local(&mesh);
    let run = ["run", "--name", "web", "--port", "0", "--upstream", "orders=0", "--upstream", "bank/card-payments=0"];
    let (said, errors, code) = home.output(&[&run[..], &[&local, "--", "sh", "-c", text]].concat()).await;
    assert_eq!(code, Some(0), "{errors}");
    let names: Vec<_> = said.lines().filter_map(|line| line.split('=').next()).collect();
    assert_eq!(names, ["CARD_PAYMENTS_ADDR", "MESH_POD", "ORDERS_ADDR", "PORT"]);
    assert!(said.contains("ORDERS_ADDR=127.0.0.1:") && said.contains("MESH_POD=web-"), "{said}");
}

#[tokio::test]
async fn a_process_is_in_the_mesh_while_it_runs_and_its_proxy_may_die() {
    if require::program("python3", "python3").is_none() {
        return;
    }
    let (home, mesh) = (Home::new(), Mesh::local().await);
    let local = local(&mesh);
    let service = [env!("CARGO_BIN_EXE_mesh"), "demo-service", "shipping"];
    let server = ["run", "--name", "shipping", "--port", "0/http", &local, "--"];
    let mut server = home.start("server", &[&server[..], &service].concat());
    let slice = slices(&mesh, 1).await.remove(0);
    let text = fs::read_to_string(&slice).expect("a file");
    assert!(text.contains(r#"kubernetes.io/service-name: "shipping""#), "{text}");

    let ask = "python3 -c 'import os, urllib.request as r; print(r.urlopen(\"http://\" + os.environ[\"SHIPPING_ADDR\"]).status)'";
    let client = ["run", "--name", "client", "--upstream", "shipping=0", &local, "--", "sh", "-c", ask];
    let (said, errors, code) = home.output(&client).await;
    assert_eq!((said.as_str(), code), ("200\n", Some(0)), "{errors}");

    let proxy = home.process(&["proxy", "--pod shipping-"]).await;
    let environment = fs::read(format!("/proc/{proxy}/cmdline")).expect("it runs");
    assert!(!String::from_utf8_lossy(&environment).contains("mesh1."), "the token is on the command line");
    kill(proxy);
    eventually("the restart", async || server.output().contains("starting it again").then_some(())).await;
    slices(&mesh, 1).await;
    let (said, errors, code) = home.output(&client).await;
    assert_eq!((said.as_str(), code), ("200\n", Some(0)), "{errors}");

    server.signal(Signal::TERM);
    assert_eq!(server.end().await.code(), Some(143));
    slices(&mesh, 0).await;
    home.is_clean().await;
}

#[tokio::test]
async fn a_run_that_is_killed_leaves_nothing() {
    let (home, mesh) = (Home::new(), Mesh::local().await);
    let local = local(&mesh);
    let service = [env!("CARGO_BIN_EXE_mesh"), "demo-service", "cart"];
    let run = ["run", "--name", "cart", "--port", "0", &local, "--"];
    let mut run = home.start("cart", &[&run[..], &service].concat());
    slices(&mesh, 1).await;
    run.signal(Signal::KILL);
    run.end().await;
    home.is_clean().await;
    slices(&mesh, 0).await;
    let sockets = fs::read_dir(mesh.path().join(".mesh/proxies")).expect("a directory").count();
    assert_eq!(sockets, 0);
}

#[tokio::test]
async fn a_mesh_that_is_not_there_is_an_error_with_advice() {
    let home = Home::new();
    let (_, said, code) = home.output(&["run", "--name", "web", "--port", "0", "--", "true"]).await;
    insta::assert_snapshot!(said, @r"
    error: no local mesh is running
    hint: start one with `mesh demo` or `mesh controller --source DIR`
    ");
    assert_eq!(code, Some(1));
    let (_, said, code) = home.output(&["run", "--name", "web", "--port", "0", "--local=shop", "--", "true"]).await;
    insta::assert_snapshot!(said, @r"
    error: no local mesh named `shop` is running
    hint: none is; start one with `mesh demo` or `mesh controller --source DIR`
    ");
    assert_eq!(code, Some(1));
}

fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::KILL).expect("it is a child of a child of ours");
}

#[tokio::test]
async fn the_load_writes_down_what_it_saw() {
    let (home, mesh) = (Home::new(), Mesh::local().await);
    let report = mesh.path().join("report.json");
    let local = local(&mesh);
    let service = [env!("CARGO_BIN_EXE_mesh"), "demo-service", "load", "--report", report.to_str().expect("text")];
    let run = ["run", "--name", "load", "--upstream", "web=0", &local, "--"];
    let mut load = home.start("load", &[&run[..], &service].concat());
    eventually("some calls", async || {
        let report: Value = serde_json::from_slice(&fs::read(&report).ok()?).ok()?;
        (report["count"].as_u64()? > 10).then_some(())
    })
    .await;
    load.signal(Signal::TERM);
    assert_eq!(load.end().await.code(), Some(0));
    let report: Value = serde_json::from_slice(&fs::read(&report).expect("a file")).expect("JSON");
    // Nobody runs web: every call failed at once.
    assert_eq!(report["count"], report["failures"]);
    home.is_clean().await;
}
