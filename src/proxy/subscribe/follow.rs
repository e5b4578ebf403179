//! One stream after another into one watch.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tracing::debug;

use super::Shared;
use crate::{
    api::{
        client::{Connection, Error},
        inbound, outbound,
    },
    model::service::Target,
    rt::backoff::Backoff,
    tls,
};

/// Follows a target until nobody watches it any more; gives its name back.
pub(super) async fn target(shared: Arc<Shared>, connection: Connection, name: Arc<str>) -> Arc<str> {
    let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
    loop {
        let Some(sender) = shared.targets.lock().get(&name).cloned() else { return name };
        let error = tokio::select! {
            error = target_stream(&connection, &name, &sender, &mut backoff) => error,
            () = unused(&sender, shared.linger) => {
                drop(sender);
                if shared.forget(&name) { return name } else { continue }
            }
        };
        debug!(target = %name, error = tls::reason::chain(&error), "the target's stream ended, asking again");
        sleep(backoff.next(&mut rand::rng())).await;
    }
}

async fn unused<T>(sender: &watch::Sender<T>, linger: Duration) {
    loop {
        sender.closed().await;
        sleep(linger).await;
        if sender.receiver_count() == 0 {
            return;
        }
    }
}

async fn target_stream(
    connection: &Connection,
    name: &str,
    sender: &watch::Sender<Option<Arc<Target>>>,
    backoff: &mut Backoff,
) -> Error {
    let mut stream = match connection.watch(&format!("/v1/outbound?target={name}")).await {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    let mut known: Option<Target> = None;
    loop {
        match stream.next().await {
            Ok(outbound::Event::Snapshot(snapshot)) => known = Some(snapshot),
            Ok(outbound::Event::Delta(delta)) => match &mut known {
                Some(target) => delta.apply(&mut target.endpoints),
                // A change of nothing: a stream begins with a snapshot.
                None => return Error::Ended,
            },
            Ok(outbound::Event::Ping(_)) => continue,
            Err(error) => return error,
        }
        backoff.reset();
        // After a reconnect the snapshot is most often what we had: nobody need wake for it.
        sender.send_if_modified(|published| {
            let changed = published.as_deref() != known.as_ref();
            if changed {
                *published = known.clone().map(Arc::new);
            }
            changed
        });
    }
}

/// Follows the inbound stream, and by it says whether the controller is there.
pub(super) async fn inbound(shared: Arc<Shared>, connection: Connection) {
    let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
    loop {
        let error = inbound_stream(&shared, &connection, &mut backoff).await;
        shared.connected.send_if_modified(|up| std::mem::replace(up, false));
        debug!(error = tls::reason::chain(&error), "the inbound stream ended, asking again");
        sleep(backoff.next(&mut rand::rng())).await;
    }
}

async fn inbound_stream(shared: &Shared, connection: &Connection, backoff: &mut Backoff) -> Error {
    let mut stream = match connection.watch("/v1/inbound").await {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    loop {
        match stream.next().await {
            Ok(inbound::Event::Snapshot(snapshot)) => {
                shared.inbound.send_if_modified(|published| {
                    let changed = published.as_deref() != Some(&snapshot);
                    if changed {
                        *published = Some(Arc::new(snapshot));
                    }
                    changed
                });
                shared.connected.send_if_modified(|up| !std::mem::replace(up, true));
                backoff.reset();
            }
            Ok(inbound::Event::Ping(_)) => {}
            Err(error) => return error,
        }
    }
}

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
