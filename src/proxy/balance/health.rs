//! Passive health: an endpoint that cannot be connected to leaves the rotation until a probe gets through.

use std::time::Duration;

/// The first wait before an ejected endpoint is probed; it doubles up to [`MAX_WAIT`].
pub(crate) const MIN_WAIT: Duration = Duration::from_millis(200);
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(10);

/// Resets in a row, with no answer between them, after which an endpoint counts as down though it accepts connections.
const RESETS_TO_EJECT: u32 = 5;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    ejected: bool,
    resets: u32,
    /// Ejections since the last answer: each makes the next probe wait longer.
    ejections: u32,
}

/// What a failure means for the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    /// Out of the rotation from now on: somebody must start probing.
    Eject,
}

impl Health {
    pub(crate) fn is_ejected(self) -> bool {
        self.ejected
    }

    /// A connection could not be made.
    pub(crate) fn connect_failed(&mut self) -> Verdict {
        self.eject()
    }

    /// A request was sent and the connection broke.
    pub(crate) fn reset(&mut self) -> Verdict {
        self.resets += 1;
        if self.resets >= RESETS_TO_EJECT { self.eject() } else { Verdict::Keep }
    }

    /// It answered a request, whatever it said.
    pub(crate) fn answered(&mut self) {
        *self = Self::default();
    }

    /// A connection could be made again. That is no answer yet: what ejected it once more does so at once.
    pub(crate) fn probed(&mut self) {
        self.ejected = false;
        self.resets = RESETS_TO_EJECT - 1;
    }

    /// How long to wait before the first probe.
    pub(crate) fn wait(self) -> Duration {
        MIN_WAIT.saturating_mul(1 << self.ejections.saturating_sub(1).min(8)).min(MAX_WAIT)
    }

    fn eject(&mut self) -> Verdict {
        let first = !self.ejected;
        self.ejected = true;
        if first {
            self.ejections += 1;
        }
        if first { Verdict::Eject } else { Verdict::Keep }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_ejects_once() {
        let mut health = Health::default();
        assert_eq!(health.connect_failed(), Verdict::Eject);
        assert_eq!(health.connect_failed(), Verdict::Keep);
        health.answered();
        assert!(!health.is_ejected());
    }

    #[test]
    fn an_endpoint_that_only_accepts_connections_is_soon_out_again_and_for_longer() {
        let mut health = Health::default();
        while health.reset() == Verdict::Keep {}
        let first = health.wait();
        health.probed();
        assert!(!health.is_ejected());
        assert_eq!(health.reset(), Verdict::Eject);
        assert_eq!(health.wait(), 2 * first);
    }

    #[test]
    fn only_resets_in_a_row_eject() {
        let mut health = Health::default();
        for _ in 0..RESETS_TO_EJECT - 1 {
            assert_eq!(health.reset(), Verdict::Keep);
        }
        health.answered();
        assert_eq!(health.reset(), Verdict::Keep);
    }
}
