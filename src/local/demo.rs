//! `mesh demo`: a shop of small services, every hop meshed.

mod cart;
mod grpc;
mod http;
mod inventory;
mod latency;
mod load;
pub(crate) mod service;
pub(crate) mod shop;
