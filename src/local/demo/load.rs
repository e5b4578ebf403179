//! `load`: calls web at a steady rate, whatever the answers take, and keeps an exact log of what it saw.
//!
//! The log stands beside the mesh's own numbers: `{"schema":"mesh.dev/load/v1", "count", "failures", "seconds", "rate",
//! "latency_ms": {"p50","p95","p99"}, "samples": [[END_UNIX_MS, STATUS, MICROSECONDS], …]}`. Status 0: no answer.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, Write},
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::Method;
use tokio::{
    task::JoinSet,
    time::{self, MissedTickBehavior},
};

use super::http::Client;
use crate::rt::{clock, signal};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot write {}", path.display())]
    Report { path: PathBuf, source: io::Error },
    #[error("cannot listen for signals")]
    Signal(#[source] io::Error),
}

#[derive(Debug)]
pub(super) struct Options {
    pub(super) rate: u32,
    pub(super) report: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    ended_ms: u64,
    status: u16,
    took: Duration,
}

#[derive(Debug, Default)]
struct Log {
    count: u64,
    failures: u64,
    /// The newest, up to [`MAX_SAMPLES`].
    samples: VecDeque<Sample>,
}

/// Calls until the process is told to end; then waits for what is in flight and writes the log a last time.
pub(super) async fn run(addr: String, options: Options) -> Result<(), Error> {
    let client = Rc::new(Client::new("web", addr));
    let log = Rc::new(RefCell::new(Log::default()));
    let started = clock::now();
    let mut calls = JoinSet::new();
    let mut tick = time::interval(Duration::from_secs(1) / options.rate.max(1));
    // A late tick is made up for: the rate is what was asked for, however long the answers take.
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut write = time::interval(WRITE_EVERY);
    let shutdown = signal::shutdown();
    tokio::pin!(shutdown);
    let mut number = 0_u64;
    loop {
        tokio::select! {
            ended = &mut shutdown => {
                ended.map_err(Error::Signal)?;
                break;
            }
            _ = tick.tick(), if calls.len() < MAX_IN_FLIGHT => {
                while calls.try_join_next().is_some() {}
                number += 1;
                calls.spawn_local(call(Rc::clone(&client), Rc::clone(&log), number));
            }
            _ = write.tick() => save(&options, &log.borrow(), started)?,
        }
    }
    let _ = time::timeout(FINISH, async { while calls.join_next().await.is_some() {} }).await;
    save(&options, &log.borrow(), started)
}

/// Three of ten visitors buy.
async fn call(client: Rc<Client>, log: Rc<RefCell<Log>>, number: u64) {
    let (method, path) = if number % 10 < 3 { (Method::POST, "/buy") } else { (Method::GET, "/") };
    let began = clock::now();
    let status = client.call(method, path).await.map_or(0, |(status, _)| status.as_u16());
    let took = clock::now().saturating_duration_since(began);
    log.borrow_mut().add(Sample { ended_ms: unix_ms(), status, took });
}

impl Sample {
    fn is_failure(self) -> bool {
        self.status == 0 || self.status >= 500
    }
}

impl Log {
    fn add(&mut self, sample: Sample) {
        self.count += 1;
        self.failures += u64::from(sample.is_failure());
        if self.samples.len() == MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    fn render(&self, rate: u32, ran: Duration) -> serde_json::Value {
        let mut sorted: Vec<_> = self.samples.iter().map(|sample| sample.took).collect();
        sorted.sort_unstable();
        let quantile = |q: f64| {
            // The nearest rank: the smallest latency that at least this share of the calls did not exceed.
            let rank = (q * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.saturating_sub(1)).map(|took| took.as_secs_f64() * 1e3)
        };
        let sample = |it: &Sample| serde_json::json!([it.ended_ms, it.status, it.took.as_micros() as u64]);
        serde_json::json!({
            "schema": "mesh.dev/load/v1",
            "rate": rate,
            "seconds": ran.as_secs_f64(),
            "count": self.count,
            "failures": self.failures,
            "latency_ms": { "p50": quantile(0.5), "p95": quantile(0.95), "p99": quantile(0.99) },
            "samples": self.samples.iter().map(sample).collect::<Vec<_>>(),
        })
    }
}

fn save(options: &Options, log: &Log, started: Instant) -> Result<(), Error> {
    let Some(path) = &options.report else { return Ok(()) };
    let report = log.render(options.rate, clock::now().saturating_duration_since(started));
    let write = || {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        writeln!(file, "{report}")?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|source| Error::Report { path: path.clone(), source })
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

const WRITE_EVERY: Duration = Duration::from_secs(1);
const FINISH: Duration = Duration::from_secs(5);
/// Beyond this the shop is stuck, and more calls would only say so more often.
const MAX_IN_FLIGHT: usize = 1000;
const MAX_SAMPLES: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_counts_failures_and_has_exact_quantiles() {
        let mut log = Log::default();
        for ms in 1..=100 {
            let status = match ms {
                7 => 503,
                8 => 0,
                9 => 404,
                _ => 200,
            };
            log.add(Sample { ended_ms: ms, status, took: Duration::from_millis(ms) });
        }
        let report = log.render(60, Duration::from_secs(2));
        assert_eq!((&report["count"], &report["failures"]), (&100.into(), &2.into()));
        assert_eq!(report["latency_ms"], serde_json::json!({ "p50": 50.0, "p95": 95.0, "p99": 99.0 }));
        assert_eq!(report["samples"][6], serde_json::json!([7, 503, 7000]));
    }
}
