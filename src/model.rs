//! The mesh's own vocabulary: what the control plane says and the data plane obeys.
//!
//! No I/O and no Kubernetes types here. The serde forms are part of the controller's API (see `api`), so a field may be
//! added but not renamed, and unknown fields are ignored.

pub(crate) mod class;
pub(crate) mod endpoint;
pub(crate) mod identity;
pub(crate) mod metric;
pub(crate) mod name;
pub(crate) mod service;
