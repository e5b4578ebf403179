//! (being written)
pub(crate) mod identity;
pub(crate) mod index;
pub(crate) mod source;
