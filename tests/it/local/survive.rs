//! Each kind of part killed in turn while the shop is busy, and what the shop's client saw of it: the log that the load
//! keeps itself, call by call.
//!
//! Shipping fails 5 % of its calls with 503, which the client sees as 1.5 % of all, one by one and evenly spread. So what a
//! kill did shows as any other failure, or as many 503s at once.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{condition::eventually, home::Home};

/// Calls a second.
const RATE: &str = "100";
/// How long is looked at after the last failure that is allowed.
const AFTER_MS: i64 = 2500;
/// More 503s than this within [`BURST_MS`], where 0.75 are expected, are not shipping's.
const BURST: usize = 10;
const BURST_MS: i64 = 500;

/// What a client may see of a kill.
struct Kill {
    /// Words of the command line of what is killed.
    words: &'static [&'static str],
    /// Failures that are not shipping's may come for so long; 0: there may be none at all.
    until_ms: i64,
    /// So many of them at most, 503s not counted.
    failures: usize,
}

const KILLS: [Kill; 9] = [
    // Traffic does not need it.
    Kill { words: &["mesh controller"], until_ms: 0, failures: 0 },
    // One of three replicas: what it was just serving, and what is sent before its death is noticed.
    Kill { words: &["demo-service payments"], until_ms: 3000, failures: 10 },
    Kill { words: &["proxy", "--pod payments-"], until_ms: 3000, failures: 10 },
    // The only replica: while it is down.
    Kill { words: &["proxy", "--pod orders-"], until_ms: 6000, failures: 200 },
    Kill { words: &["demo-service orders"], until_ms: 6000, failures: 200 },
    // Both pages need it, over connections that are bytes to the proxies.
    Kill { words: &["proxy", "--pod cart-"], until_ms: 6000, failures: 600 },
    Kill { words: &["demo-service cart"], until_ms: 6000, failures: 600 },
    // Everything goes through these.
    Kill { words: &["proxy", "--pod load-"], until_ms: 6000, failures: 600 },
    Kill { words: &["demo-service web"], until_ms: 6000, failures: 600 },
];

#[derive(Clone, Copy, Debug)]
struct Call {
    /// Since the kill.
    ended_ms: i64,
    /// 0: no answer.
    status: u64,
}

impl Call {
    /// Not one of shipping's failures.
    fn is_broken(self) -> bool {
        self.status != 200 && self.status != 503
    }
}

/// All calls that ended between `kill` and `until_ms` after it, once the log goes that far.
async fn calls(report: &Path, kill: u64, until_ms: i64) -> Vec<Call> {
    eventually("the load's log of the time after a kill", async || {
        let report: Value = serde_json::from_slice(&fs::read(report).ok()?).ok()?;
        let call = |sample: &Value| {
            let ended_ms = sample[0].as_u64()?.checked_signed_diff(kill)?;
            Some(Call { ended_ms, status: sample[1].as_u64()? })
        };
        let calls: Vec<Call> = report["samples"].as_array()?.iter().filter_map(call).collect();
        let is_whole = calls.last()?.ended_ms > until_ms;
        is_whole.then(|| calls.into_iter().filter(|call| (0..until_ms).contains(&call.ended_ms)).collect())
    })
    .await
}

/// The most 503s that ended close together, and when that was.
fn densest(calls: &[Call]) -> (usize, i64) {
    let refused: Vec<i64> = calls.iter().filter(|call| call.status == 503).map(|call| call.ended_ms).collect();
    let near = |from: i64| refused.iter().filter(|at| (from..from + BURST_MS).contains(at)).count();
    refused.iter().map(|from| (near(*from), *from)).max().unwrap_or_default()
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).expect("not that far in the future")
}

#[tokio::test]
async fn whatever_is_killed_a_client_sees_no_more_of_it_than_it_must() {
    let home = Home::new();
    let report = home.path().join(".report.json");
    let mut demo = home.demo("demo", &["--rate", RATE, "--report", report.to_str().expect("text")]).await;
    // What the first calls find half open is no matter of this test.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for Kill { words, until_ms, failures } in KILLS {
        let pid = home.process(words).await;
        let kill = unix_ms();
        kill_process(Pid::from_raw(pid.cast_signed()).expect("a process id"), Signal::KILL).expect("it runs");
        let calls = calls(&report, kill, until_ms + AFTER_MS).await;
        assert!(calls.len() > 100, "{words:?}: {} calls", calls.len());
        let broken: Vec<Call> = calls.iter().copied().filter(|call| call.is_broken()).collect();
        assert!(broken.len() <= failures, "{words:?}: {} failures: {broken:?}", broken.len());
        let late: Vec<&Call> = broken.iter().filter(|call| call.ended_ms > until_ms).collect();
        assert!(late.is_empty(), "{words:?}: {late:?}");
        let after: Vec<Call> = calls.iter().copied().filter(|call| call.ended_ms >= until_ms).collect();
        let (count, at) = densest(&after);
        assert!(count <= BURST, "{words:?}: {count} calls refused within {BURST_MS} ms, from {at} ms on");
    }
    demo.signal(Signal::TERM);
    assert_eq!(demo.end().await.code(), Some(0), "{}", demo.output());
    assert_eq!((home.processes(), home.entries()), (vec![], vec![]));
}
