//! What happened lately: a ring of time slots, 1 s for the last minute and 10 s for the last ten.
//!
//! Sparse: a slot exists only when something happened in it, so an idle series costs two empty queues. Bounded: at most 61
//! slots of either kind. Time is an argument.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Fine slots are kept for this many seconds, then folded into coarse ones.
const FINE_SECONDS: u32 = 60;
const COARSE_SECONDS: u32 = 10;
/// The longest window that can be asked for.
pub(crate) const MAX_WINDOW: Duration = Duration::from_secs(600);
const COARSE_SLOTS: u32 = 60;

/// What a slot holds: something that adds up.
pub(crate) trait Merge: Default {
    fn merge(&mut self, other: &Self);
    /// Back to nothing, keeping the storage.
    fn clear(&mut self);
}

impl Merge for u64 {
    fn merge(&mut self, other: &Self) {
        *self += other;
    }

    fn clear(&mut self) {
        *self = 0;
    }
}

/// Counts whole seconds since a start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticks(Instant);

/// A second since the start of a [`Ticks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u32);

impl Ticks {
    pub(crate) fn since(start: Instant) -> Self {
        Self(start)
    }

    pub(crate) fn at(self, now: Instant) -> Tick {
        Tick(u32::try_from(now.saturating_duration_since(self.0).as_secs()).unwrap_or(u32::MAX))
    }

    /// The slots that a window reaches back over from `now`. They begin at a slot's border, so they cover a little more
    /// than was asked: [`Span::covered`] says how much, and it is less soon after the start.
    pub(crate) fn span(self, window: Duration, now: Instant) -> Span {
        let window = window.clamp(Duration::from_secs(1), MAX_WINDOW);
        let seconds = u32::try_from(window.as_secs()).unwrap_or(u32::MAX) + u32::from(window.subsec_nanos() > 0);
        let from = self.at(now).0.saturating_sub(seconds);
        let with_coarse = seconds > FINE_SECONDS;
        let from = if with_coarse { from - from % COARSE_SECONDS } else { from };
        let elapsed = now.saturating_duration_since(self.0);
        Span { from, with_coarse, covered: elapsed.saturating_sub(Duration::from_secs(from.into())) }
    }
}

/// The slots of a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    from: u32,
    with_coarse: bool,
    covered: Duration,
}

impl Span {
    /// The time between the first slot's beginning and now.
    pub(crate) fn covered(&self) -> Duration {
        self.covered
    }
}

/// The ring of one series.
#[derive(Clone, Debug)]
pub(crate) struct Ring<T> {
    /// Each queue is ordered by time; the number is the slot's second, or ten seconds.
    fine: VecDeque<(u32, T)>,
    coarse: VecDeque<(u32, T)>,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { fine: VecDeque::new(), coarse: VecDeque::new() }
    }
}

impl<T: Merge> Ring<T> {
    /// The slot to add to. A `now` before the newest slot adds to the newest: callers read the clock at their leisure.
    pub(crate) fn slot(&mut self, now: Tick) -> &mut T {
        if self.fine.back().is_none_or(|(second, _)| *second < now.0) {
            let mut fresh = self.expire(now).unwrap_or_default();
            fresh.clear();
            self.fine.push_back((now.0, fresh));
        }
        &mut self.fine.back_mut().expect("a slot was pushed if there was none").1
    }

    /// Everything within a window, added up.
    pub(crate) fn sum(&self, span: &Span) -> T {
        let mut sum = T::default();
        let fine = self.fine.iter().filter(|(second, _)| *second >= span.from);
        let coarse = self.coarse.iter().filter(|(ten, _)| span.with_coarse && ten * COARSE_SECONDS >= span.from);
        fine.chain(coarse).for_each(|(_, slot)| sum.merge(slot));
        sum
    }

    /// Gives back the memory of what no window can reach any more.
    pub(crate) fn prune(&mut self, now: Tick) {
        self.expire(now);
        if self.fine.is_empty() {
            self.fine = VecDeque::new();
        }
        if self.coarse.is_empty() {
            self.coarse = VecDeque::new();
        }
    }

    /// Folds old fine slots into coarse ones and drops old coarse ones; gives back one slot's storage for reuse.
    fn expire(&mut self, now: Tick) -> Option<T> {
        let mut spare = None;
        let coarse_now = now.0 / COARSE_SECONDS;
        while self.coarse.front().is_some_and(|(ten, _)| ten + COARSE_SLOTS < coarse_now) {
            spare = self.coarse.pop_front().map(|(_, slot)| slot);
        }
        while self.fine.front().is_some_and(|(second, _)| second + FINE_SECONDS < now.0) {
            let Some((second, slot)) = self.fine.pop_front() else { break };
            let ten = second / COARSE_SECONDS;
            match self.coarse.back_mut().filter(|(newest, _)| *newest >= ten) {
                _ if ten + COARSE_SLOTS < coarse_now => spare = Some(slot),
                Some((_, same)) => {
                    same.merge(&slot);
                    spare = Some(slot);
                }
                None => self.coarse.push_back((ten, slot)),
            }
        }
        spare
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rt::clock;

    const SECOND: Duration = Duration::from_secs(1);

    proptest! {
        /// The law of the ring: a window holds exactly what happened since the span's first slot.
        #[test]
        fn a_window_holds_what_happened_in_it(gaps_ms in prop::collection::vec(0_u64..30_000, 1..200), window_s in 1_u64..=600) {
            let start = clock::now();
            let ticks = Ticks::since(start);
            let (mut ring, mut now, mut seen) = (Ring::<u64>::default(), start, Vec::new());
            for gap in gaps_ms {
                now += Duration::from_millis(gap);
                *ring.slot(ticks.at(now)) += 1;
                seen.push(now);
            }
            let span = ticks.span(Duration::from_secs(window_s), now);
            let since = now - span.covered();
            let expected = seen.iter().filter(|at| **at >= since).count() as u64;
            prop_assert_eq!(ring.sum(&span), expected);
            prop_assert!(span.covered() <= Duration::from_secs(window_s) + 11 * SECOND);
            prop_assert!(ring.fine.len() <= 61 && ring.coarse.len() <= 61);
        }
    }

    #[test]
    fn soon_after_the_start_a_window_covers_only_the_time_since() {
        let start = clock::now();
        let span = Ticks::since(start).span(Duration::from_secs(60), start + Duration::from_millis(2500));
        assert_eq!(span.covered(), Duration::from_millis(2500));
    }

    #[test]
    fn an_idle_series_gives_its_memory_back() {
        let start = clock::now();
        let ticks = Ticks::since(start);
        let mut ring = Ring::<u64>::default();
        *ring.slot(ticks.at(start)) += 1;
        ring.prune(ticks.at(start + 700 * SECOND));
        assert_eq!((ring.fine.capacity(), ring.coarse.capacity()), (0, 0));
    }
}
