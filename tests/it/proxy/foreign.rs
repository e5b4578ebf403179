//! Clients and servers that are not ours: curl, Python's grpcio and websockets, wrk and h2load.

use std::{net::SocketAddr, path::Path, time::Duration};

use tempfile::TempDir;
use tokio::process::Command;

use super::Pair;
use crate::support::{
    condition::{eventually, within},
    mesh::Mesh,
    process::Process,
    require,
    server::{Server, ok},
    wire::Message,
};

/// Runs a client to its end and gives its standard output; fails with all it said.
async fn run(program: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    let output =
        within("a client's end", Duration::from_secs(120), command.args(arguments).kill_on_drop(true).output());
    let output = output.await.expect("it can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Starts a server of `tests/fixtures`, which prints the port it listens on.
async fn serve(python: &Path, script: &str, dir: &TempDir) -> (Process, SocketAddr) {
    let mut process = Process::start("peer", dir.path(), Command::new(python).args([script, "serve"]));
    let port = eventually("the port of a server", async || {
        process.check();
        process.output().lines().next().and_then(|line| line.parse::<u16>().ok())
    })
    .await;
    (process, SocketAddr::from(([127, 0, 0, 1], port)))
}

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn grpcio_makes_all_four_kinds_of_calls_through_two_proxies() {
    let Some(python) = require::python() else { return };
    let (script, dir) = (fixture("grpc_peer.py"), TempDir::new().expect("a directory"));
    let (_server, addr) = serve(&python, &script, &dir).await;
    let mesh = Mesh::local().await;
    for protocol in ["grpc", ""] {
        let name = if protocol.is_empty() { "detected" } else { "described" };
        let app = mesh.proxy(name).port(addr, protocol).start().await;
        let web = format!("web-{name}");
        let web = mesh.proxy(&web).upstream(name).start().await;
        run(&python, &[&script, "call", &web.outbound(name).to_string()]).await;
        let samples = app.samples("mesh_requests_total").await;
        // The call that failed on purpose: FAILED_PRECONDITION.
        let failed = samples.keys().any(|l| l.contains("protocol=\"grpc\"") && l.contains("grpc_status=\"9\""));
        assert!(failed, "{name}: {samples:#?}");
    }
}

#[tokio::test]
async fn websockets_talk_through_two_proxies() {
    let Some(python) = require::python() else { return };
    let (script, dir) = (fixture("websocket_peer.py"), TempDir::new().expect("a directory"));
    let (_server, addr) = serve(&python, &script, &dir).await;
    let mesh = Mesh::local().await;
    let _app = mesh.proxy("app").port(addr, "http").start().await;
    let web = mesh.proxy("web").upstream("app").start().await;
    run(&python, &[&script, "call", &web.outbound("app").port().to_string()]).await;
}

#[tokio::test]
async fn curl_gets_the_same_bytes_over_http1_and_http2() {
    let Some(curl) = require::program("curl", "curl") else { return };
    let server = Server::http1(async |request: Message| ok(request.body)).await;
    let http2 = Server::http2(super::grpc::echo).await;
    let dir = TempDir::new().expect("a directory");
    let (sent, got) = (dir.path().join("sent"), dir.path().join("got"));
    let body: Vec<u8> = (0..5_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&sent, &body).expect("a writable directory");
    for (server, flag) in [(&server, "--http1.1"), (&http2, "--http2-prior-knowledge")] {
        let pair = Pair::around(server, "").await;
        let url = format!("http://{}/", pair.addr());
        let data = format!("@{}", sent.display());
        let out = got.display().to_string();
        run(&curl, &["--silent", "--show-error", "--fail", flag, "--data-binary", &data, "--output", &out, &url]).await;
        assert!(std::fs::read(&got).expect("a body") == body, "{flag}: the body changed on its way");
    }
}

#[tokio::test]
async fn wrk_sees_no_error() {
    let Some(wrk) = require::program("wrk", "wrk") else { return };
    let server = Server::http1(async |_: Message| ok("x".repeat(128))).await;
    let pair = Pair::around(&server, "http").await;
    let report = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/report.lua");
    let url = format!("http://{}/", pair.addr());
    let text = run(&wrk, &["-t1", "-c64", "-d3s", "-s", report, &url]).await;
    assert!(text.contains("\"errors\": 0,") && !text.contains("\"requests\": 0,"), "{text}");
}

#[tokio::test]
async fn h2load_sees_no_error() {
    let Some(h2load) = require::program("h2load", "nghttp2-client") else { return };
    let server = Server::http2(super::grpc::echo).await;
    let pair = Pair::around(&server, "").await;
    let url = format!("http://{}/", pair.addr());
    let text = run(&h2load, &["-n20000", "-c8", "-m8", &url]).await;
    let good = text.contains("20000 done, 20000 succeeded, 0 failed, 0 errored, 0 timeout");
    assert!(good, "{text}\n{:#?}", pair.app.samples("mesh_requests_total").await);
}
