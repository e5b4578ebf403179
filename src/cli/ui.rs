//! What every command says and how: data to stdout, everything else to stderr.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::local;

/// Writes `data` to stdout, whole.
///
/// # Errors
/// What the descriptor says; a closed pipe is turned into success by [`exit_code`].
pub(crate) fn print(data: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(data.as_bytes())?;
    out.flush()
}

/// A line to stderr. A stderr that cannot be written to is nobody's loss.
pub(crate) fn report(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// An error with advice: shown as `hint: …` below the error.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Hinted {
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl Hinted {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

/// An error of the local mesh's registry, with its advice where it has one.
pub(crate) fn local(error: local::Error) -> anyhow::Error {
    match error.hint() {
        Some(hint) => Hinted::new(error.to_string(), hint).into(),
        None => error.into(),
    }
}

/// The end of a command as an exit code, its error on stderr. A broken pipe anywhere in the chain is a reader that
/// has seen enough.
pub(super) fn exit_code(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    let error = match outcome {
        Ok(code) => return code,
        Err(error) => error,
    };
    let broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(broken_pipe) {
        return ExitCode::SUCCESS;
    }
    // anyhow's alternate form is the whole chain, on one line.
    report(&format!("error: {error:#}"));
    if let Some(hinted) = error.chain().find_map(|cause| cause.downcast_ref::<Hinted>()) {
        report(&format!("hint: {}", hinted.hint));
    }
    ExitCode::FAILURE
}
