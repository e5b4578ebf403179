//! What tests are written with: a mesh of real processes, servers and clients inside the test, waiting, and needs.

pub(crate) mod condition;
pub(crate) mod home;
pub(crate) mod mesh;
pub(crate) mod namespace;
pub(crate) mod process;
pub(crate) mod require;
pub(crate) mod server;
pub(crate) mod wire;
