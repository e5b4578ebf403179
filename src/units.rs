//! Quantities as people write them.

pub(crate) mod duration;
