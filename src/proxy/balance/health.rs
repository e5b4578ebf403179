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

    /// It answered, whatever it said, or a probe got through.
    pub(crate) fn answered(&mut self) {
        *self = Self::default();
    }

    fn eject(&mut self) -> Verdict {
        let first = !self.ejected;
        self.ejected = true;
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
    fn only_resets_in_a_row_eject() {
        let mut health = Health::default();
        for _ in 0..RESETS_TO_EJECT - 1 {
            assert_eq!(health.reset(), Verdict::Keep);
        }
        health.answered();
        assert_eq!(health.reset(), Verdict::Keep);
    }
}
