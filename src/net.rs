//! Sockets: bind, dial, where a redirected connection was going, and bytes from one side to the other.

pub(crate) mod dial;
pub(crate) mod listen;
pub(crate) mod orig_dst;
pub(crate) mod prefixed;
pub(crate) mod splice;
