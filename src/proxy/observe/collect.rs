//! From the workers to the control thread: a question over a channel, a [`Snapshot`] back. No locks, nothing shared.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Observer, Snapshot};
use crate::rt::clock;

/// A worker that is this late has a problem that its figures would not explain.
const DEADLINE: Duration = Duration::from_secs(1);
/// How often a worker gives back the memory of idle series.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
/// Questions a worker may have waiting: admin requests are few.
const QUESTIONS: usize = 16;

struct Question {
    window: Option<Duration>,
    now: Instant,
    answer: oneshot::Sender<Snapshot>,
}

/// Asks the workers. Lives on the control thread.
#[derive(Clone, Debug)]
pub(crate) struct Collector {
    workers: Vec<mpsc::Sender<Question>>,
}

/// A worker's end.
#[derive(Debug)]
pub(crate) struct Feed {
    questions: mpsc::Receiver<Question>,
}

pub(crate) fn channel(workers: usize) -> (Collector, Vec<Feed>) {
    let pair = |_| {
        let (sender, questions) = mpsc::channel(QUESTIONS);
        (sender, Feed { questions })
    };
    let (workers, feeds) = (0..workers).map(pair).unzip();
    (Collector { workers }, feeds)
}

impl Collector {
    /// The sum over all workers; see [`Snapshot::missing_workers`].
    pub(crate) async fn snapshot(&self, window: Option<Duration>) -> Snapshot {
        let now = clock::now();
        let mut sum = Snapshot::default();
        for answer in join_all(self.workers.iter().map(|worker| ask(worker, window, now))).await {
            sum.merge(answer.unwrap_or_else(|| Snapshot { missing_workers: 1, ..Snapshot::default() }));
        }
        sum
    }
}

async fn ask(worker: &mpsc::Sender<Question>, window: Option<Duration>, now: Instant) -> Option<Snapshot> {
    let (answer, answered) = oneshot::channel();
    let asked = async {
        worker.send(Question { window, now, answer }).await.ok()?;
        answered.await.ok()
    };
    timeout(DEADLINE, asked).await.ok().flatten()
}

impl Feed {
    /// Answers until the collector is gone: a task of the worker's.
    pub(crate) async fn serve(mut self, observer: Observer) {
        let mut prune = interval(PRUNE_INTERVAL);
        prune.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                question = self.questions.recv() => {
                    let Some(question) = question else { return };
                    // An asker that gave up needs no answer.
                    let _ = question.answer.send(observer.snapshot(question.window, question.now));
                }
                _ = prune.tick() => observer.prune(clock::now()),
            }
        }
    }
}
