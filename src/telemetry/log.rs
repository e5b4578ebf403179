//! Where `tracing` events go: to stderr, a compact line or a JSON object each, with a filter that can be changed live.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("`{filter}` is not a log filter: expected a level (info) or directives (info,mesh::access=off)")]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("logging is already set up")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    #[error("the log filter cannot be changed any more")]
    Gone(#[from] reload::Error),
}

/// Changes the filter of the running process.
#[derive(Clone, Debug)]
pub(crate) struct Handle(reload::Handle<EnvFilter, Registry>);

/// Starts logging, once a process. Colour only on a terminal and without NO_COLOR (no-color.org).
///
/// # Errors
/// A filter that does not parse; a second call.
pub(crate) fn init(filter: &str, json: bool) -> Result<Handle, Error> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colour);
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        registry.with(lines.json().flatten_event(true)).try_init()?;
    } else {
        registry.with(lines.compact()).try_init()?;
    }
    Ok(Handle(handle))
}

impl Handle {
    /// # Errors
    /// A filter that does not parse: the one in force stays.
    pub(crate) fn set(&self, filter: &str) -> Result<(), Error> {
        Ok(self.0.reload(parse(filter)?)?)
    }
}

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    EnvFilter::try_new(filter).map_err(|source| Error::Filter { filter: filter.to_owned(), source })
}
