//! `mesh stat` against the truth: what the client and the backend of known traffic wrote down themselves.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    condition::eventually,
    home::Home,
    mesh::Mesh,
    server::{Server, ok},
    wire::{Message, Wire},
};

const CLIENTS: usize = 8;
const REQUESTS: usize = 40;
/// How far a quantile may be from the exact one.
const ERROR: f64 = 0.02;

/// The nearest rank: the smallest of these that at least this share of them does not exceed.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[((q * sorted.len() as f64).ceil() as usize).saturating_sub(1)]
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn sorted(mut all: Vec<f64>) -> Vec<f64> {
    all.sort_unstable_by(f64::total_cmp);
    all
}

/// 50 to 120 ms, in no order; every seventh fails, every eleventh finds nothing, which is no failure.
async fn answer(number: usize) -> Vec<u8> {
    tokio::time::sleep(Duration::from_millis(50 + (number as u64 * 37) % 71)).await;
    match number {
        n if n % 7 == 0 => b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n".to_vec(),
        n if n % 11 == 0 => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
        n => ok(format!("answer {n}")),
    }
}

/// Statuses and milliseconds, as the clients saw them.
async fn load(addr: std::net::SocketAddr) -> (Vec<u16>, Vec<f64>) {
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(async move {
            let (mut client, mut log) = (Wire::connect(addr).await, Vec::new());
            for _ in 0..REQUESTS {
                let begun = Instant::now();
                client.send("GET / HTTP/1.1\r\nhost: app\r\n\r\n").await;
                let response = client.response().await;
                log.push((response.status, ms(begun)));
            }
            log
        });
    }
    clients.join_all().await.into_iter().flatten().unzip()
}

#[tokio::test]
async fn counts_are_exact_and_quantiles_are_between_those_of_the_backend_and_of_the_client() {
    let (count, worked) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let log = worked.clone();
    let server = Server::http1(move |_: Message| {
        let (number, log) = (count.fetch_add(1, Ordering::Relaxed), log.clone());
        async move {
            let begun = Instant::now();
            let answer = answer(number).await;
            log.lock().expect("no panic").push(ms(begun));
            answer
        }
    })
    .await;
    let (home, mesh) = (Home::new(), Mesh::local().await);
    let _app = mesh.proxy("app").port(server.addr, "http").start().await;
    let web = mesh.proxy("web").upstream("app").start().await;
    let (statuses, client) = load(web.outbound("app")).await;
    let backend = sorted(worked.lock().expect("no panic").clone());
    let client = sorted(client);
    let failures = statuses.iter().filter(|status| **status >= 500).count();
    assert_eq!((statuses.len(), failures), (CLIENTS * REQUESTS, (CLIENTS * REQUESTS).div_ceil(7)));

    let local = format!("--local={}/", mesh.path().display());
    let asked: [&[&str]; 5] = [
        &["deploy/app"],
        &["deploy/web", "--to", "deploy/app"],
        &["deploy/web", "--to", "svc/app"],
        &["deploy/app", "--from", "deploy/web"],
        &["svc/app"],
    ];
    for words in asked {
        let command = [&["stat"], words, &["-o", "json", "-t", "30s", &local]].concat();
        // The last records may be on their way still.
        let row = eventually(&format!("all requests in {words:?}"), async || {
            let (text, said, code) = home.output(&command).await;
            assert_eq!(code, Some(0), "{words:?}: {said}");
            let answer: Value = serde_json::from_str(&text).expect("JSON");
            let rows = answer["rows"].as_array().expect("rows");
            assert!(rows.len() <= 1, "{words:?}: {answer:#}");
            let row = rows.first()?.clone();
            (row["samples"].as_u64()? >= statuses.len() as u64).then_some(row)
        })
        .await;
        let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no number in {words:?}: {row:#}"));
        assert_eq!((&row["samples"], &row["failures"]), (&statuses.len().into(), &failures.into()), "{words:?}");
        let success = 1.0 - failures as f64 / statuses.len() as f64;
        assert!((number(&row["success"]) - success).abs() < 1e-9, "{words:?}: {row:#}");
        let rate = statuses.len() as f64 / number(&row["covered_seconds"]);
        assert!((number(&row["rps"]) / rate - 1.0).abs() < 0.01, "{words:?}: {row:#}");
        for (name, q) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
            // Every request takes the backend no longer than the proxies, and those no longer than the client.
            let (low, high) = (quantile(&backend, q), quantile(&client, q));
            let ours = number(&row["latency_ms"][name]);
            let is_true = low * (1.0 - ERROR) <= ours && ours <= high * (1.0 + ERROR);
            assert!(is_true, "{words:?}: {name} is {ours} ms; the backend's {low}, the client's {high}");
        }
    }
}
