//! The mesh without Kubernetes: a directory stands for the cluster, `mesh run` puts processes into it.
//!
//! Composition root of `mesh run` and `mesh demo`; `registry` is what every command with `--local` asks.

pub(crate) mod registry;

pub(crate) use registry::{Error, Mesh};
