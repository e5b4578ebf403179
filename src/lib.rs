//! The parts of `mesh`, in layers. A module may use the layers below its own, its own subtree, and in its own layer
//! only what stands to its left; `proxy` and `controller` never see each other. `tests/it/layers.rs` holds the code to this.
//!
//! ```text
//! cli                                what a person types: one file a command, no logic
//! proxy     controller     local     the three roles
//! query                              windows, aggregation and quantiles of scraped samples
//! tls   api   yaml                   one outside thing each
//! model                              the mesh's own vocabulary
//! units   rt   net   telemetry       the ground
//! ```

pub mod cli;
pub mod controller;
pub mod local;
pub mod proxy;

mod api;
mod model;
mod net;
mod query;
mod rt;
mod telemetry;
mod tls;
mod units;
mod yaml;
