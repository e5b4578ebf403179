//! Bytes between a client and a server, counted for the edge that they belong to.

use std::time::Duration;

use super::{
    error::{Error, Kind},
    io::Io,
    observe,
};
use crate::net::splice::{self, Side};

/// Carries bytes both ways until both sides have closed. `peer` is the side that the edge is about: what comes from there
/// is read, what goes there is written.
///
/// # Errors
/// When one side broke off, or nothing moved for `idle`.
pub(crate) async fn carry(
    mut client: Io,
    mut server: Io,
    peer: Side,
    connection: &observe::Connection,
    idle: Duration,
) -> Result<(), Error> {
    let moved = |from: Side, n: usize| {
        if from == peer { connection.add_read(n as u64) } else { connection.add_written(n as u64) }
    };
    splice::splice(&mut client, &mut server, idle, moved).await.map_err(|error| {
        connection.failed(match &error {
            splice::Error::Idle(_) => "idle",
            splice::Error::Broken(Side::Left, _) => "client-reset",
            splice::Error::Broken(Side::Right, _) => "server-reset",
        });
        Error::caused(Kind::Reset, error)
    })
}
