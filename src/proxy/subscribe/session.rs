//! The connection: dialled, used until it is lost, dialled again.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::sleep};
use tracing::{debug, info, warn};

use super::{Subscriber, follow};
use crate::{
    api::client::Connection,
    proxy::identity::dial,
    rt::{backoff::Backoff, clock},
    tls::{self, Identity},
};

impl Subscriber {
    /// Keeps the streams up for ever; ends by being dropped.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        let mut reported = false;
        while let Some(identity) = self.valid_identity().await {
            match dial::dial(&self.controller, identity.controller()).await {
                Ok((connection, driver, _)) => {
                    let heard = self.session(connection, driver).await;
                    self.shared.connected.send_if_modified(|up| std::mem::replace(up, false));
                    if heard {
                        backoff.reset();
                        reported = false;
                        info!("the connection to the controller ended, dialling again");
                    }
                }
                Err(error) => {
                    let (reason, error) = (error.reason(), tls::reason::chain(&error));
                    if reported {
                        debug!(reason, error, "the controller is still away");
                    } else {
                        warn!(reason, error, "the controller is away, going on with what is known");
                    }
                    reported = true;
                }
            }
            sleep(backoff.next(&mut rand::rng())).await;
        }
    }

    /// Waits for a certificate to dial with; `None` when there will be no more.
    async fn valid_identity(&mut self) -> Option<Arc<Identity>> {
        let valid = |identity: &Option<Arc<Identity>>| {
            identity.as_ref().is_some_and(|identity| !identity.is_expired(clock::unix_seconds()))
        };
        self.identity.wait_for(valid).await.ok()?.clone()
    }

    /// One connection's life; `true` when the controller was heard on it.
    async fn session(&self, connection: Connection, driver: impl Future<Output = Result<(), hyper::Error>>) -> bool {
        let mut heard = self.shared.connected.subscribe();
        heard.mark_unchanged();
        let mut streams = JoinSet::new();
        let mut running = HashSet::new();
        let (shared, own) = (Arc::clone(&self.shared), connection.clone());
        streams.spawn_local(async move {
            follow::inbound(shared, own).await;
            None
        });
        let follow = async {
            loop {
                let asked: Vec<Arc<str>> = self.shared.targets.lock().keys().cloned().collect();
                for name in asked {
                    if running.insert(Arc::clone(&name)) {
                        let target = follow::target(Arc::clone(&self.shared), connection.clone(), name);
                        streams.spawn_local(async move { Some(target.await) });
                    }
                }
                tokio::select! {
                    () = self.shared.asked.notified() => {}
                    Some(ended) = streams.join_next() => if let Ok(Some(name)) = ended {
                        running.remove(&name);
                    },
                }
            }
        };
        tokio::select! {
            () = follow => {}
            lost = driver => if let Err(error) = lost {
                debug!(error = tls::reason::chain(&error), "the connection to the controller was lost");
            },
        }
        heard.has_changed().unwrap_or_default()
    }
}

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
