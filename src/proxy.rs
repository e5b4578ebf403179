//! (being written)

pub(crate) mod identity;
pub(crate) mod subscribe;
