//! (being written)
pub(crate) mod admin;
pub(crate) mod observe;
