pub(crate) mod admin;
pub(crate) mod identity;
pub(crate) mod observe;
pub(crate) mod subscribe;
