//! Counting, timing, logging and the exposition text. Names of metrics and labels are not here: see `model::metric`.

pub(crate) mod encode;
pub(crate) mod histogram;
pub(crate) mod log;
pub(crate) mod process;
pub(crate) mod window;
