//! The workload's certificate: obtained from the controller, renewed long before it ends, swapped without a connection lost.
//!
//! In: how to prove who we are ([`Config`]) and the trust anchors of the inbound stream. Out: a watch of [`Identity`], which
//! also carries the expiry for metrics. While the controller is away the last certificate stays in use until it expires,
//! and an expired one stays visible as such: whoever dials or accepts refuses, nobody falls back to plaintext.

use std::{sync::Arc, time::Duration};

use rand::{Rng, RngExt};
use tokio::{sync::watch, time::sleep};
use tracing::{debug, info, warn};

use crate::{
    api::inbound::Inbound,
    rt::{backoff::Backoff, clock},
    tls::{self, Identity},
};

pub(crate) mod args;
mod certify;
pub(crate) mod dial;

pub(crate) use args::{Args, Config};

/// How certificates were obtained so far, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Renewals {
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
}

/// Owns the identity. Must be [`run`](Manager::run) on a `LocalSet`.
pub(crate) struct Manager {
    config: Config,
    identity: watch::Sender<Option<Arc<Identity>>>,
    renewals: watch::Sender<Renewals>,
}

/// A manager and its identity: `None` until the first certificate.
pub(crate) fn channel(config: Config) -> (Manager, watch::Receiver<Option<Arc<Identity>>>) {
    let (identity, watching) = watch::channel(None);
    (Manager { config, identity, renewals: watch::Sender::default() }, watching)
}

impl Manager {
    pub(crate) fn renewals(&self) -> watch::Receiver<Renewals> {
        self.renewals.subscribe()
    }

    /// Obtains and renews for ever; ends by being dropped.
    pub(crate) async fn run(self, mut inbound: watch::Receiver<Option<Arc<Inbound>>>) {
        let mut rng = rand::rng();
        loop {
            let identity = self.obtain(&mut rng).await;
            let renew_at = renewal_time(clock::unix_seconds(), identity.expires_at, &mut rng);
            info!(id = %identity.id, expires_at = identity.expires_at, renew_at, "certificate obtained");
            // Anchors of the stream are newer than those of the answer only if they come after it.
            inbound.mark_unchanged();
            self.identity.send_replace(Some(Arc::new(identity)));
            tokio::select! {
                () = wait_until(renew_at) => {}
                () = self.follow_trust_anchors(&mut inbound) => {}
            }
        }
    }

    async fn obtain(&self, rng: &mut impl Rng) -> Identity {
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        let mut renewable = true;
        let mut reported = false;
        loop {
            let now = clock::unix_seconds();
            let current = self.identity.borrow().clone().filter(|identity| renewable && !identity.is_expired(now));
            match certify::certify(&self.config, current.as_deref()).await {
                Ok(identity) => {
                    self.renewals.send_modify(|renewals| renewals.succeeded += 1);
                    return identity;
                }
                Err(error) => {
                    self.renewals.send_modify(|renewals| renewals.failed += 1);
                    let (reason, error) = (error.reason(), tls::reason::chain(&error));
                    // Once per outage: how long it lasts is seen in the metrics.
                    if reported {
                        debug!(reason, error, "still no certificate from the controller");
                    } else {
                        warn!(reason, error, "no certificate from the controller, trying on");
                    }
                    reported = true;
                    // A controller that lost its CA knows our token, perhaps, but not our certificate.
                    renewable = !renewable;
                    sleep(backoff.next(rng)).await;
                }
            }
        }
    }

    /// Rebuilds the configurations whenever the controller names other roots. Never returns.
    async fn follow_trust_anchors(&self, inbound: &mut watch::Receiver<Option<Arc<Inbound>>>) {
        while inbound.changed().await.is_ok() {
            let Some(snapshot) = inbound.borrow_and_update().clone() else { continue };
            let Some(current) = self.identity.borrow().clone() else { continue };
            if current.trust_anchors() == snapshot.trust_anchors {
                continue;
            }
            match current.with_trust_anchors(&snapshot.trust_anchors) {
                Ok(identity) => {
                    info!("trust anchors changed");
                    self.identity.send_replace(Some(Arc::new(identity)));
                }
                Err(error) => warn!(error = tls::reason::chain(&error), "unusable trust anchors, keeping those in use"),
            }
        }
        std::future::pending().await
    }
}

/// At two thirds of what is left of the certificate's life, up to a tenth earlier so that many proxies spread out.
fn renewal_time(now: i64, expires_at: i64, rng: &mut impl Rng) -> i64 {
    let left = expires_at.saturating_sub(now).max(0);
    let earlier = left / 15;
    now + (left * 2 / 3 - rng.random_range(0..=earlier)).max(1)
}

/// By the wall clock, looked at every now and then: a laptop that slept must renew when it wakes, not hours later.
async fn wait_until(unix_seconds: i64) {
    loop {
        let left = unix_seconds - clock::unix_seconds();
        let Some(left) = u64::try_from(left).ok().filter(|left| *left > 0) else { return };
        sleep(Duration::from_secs(left).min(CLOCK_CHECK)).await;
    }
}

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
const CLOCK_CHECK: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    proptest! {
        #[test]
        fn renewal_is_at_about_two_thirds_and_never_in_the_past(life in -10i64..200_000, seed: u64) {
            let at = renewal_time(1_000_000, 1_000_000 + life, &mut StdRng::seed_from_u64(seed)) - 1_000_000;
            prop_assert!(at >= 1);
            if life > 30 {
                prop_assert!(at >= life * 59 / 100 && at <= life * 2 / 3, "{at} of {life}");
            }
        }
    }
}
