//! YAML and JSON in: the only module that names serde_yaml.
//!
//! In: a file's text, perhaps many documents. Out: typed values, or an [`Error`] that says which file and which line of
//! the whole file. Input is bounded in size, number of documents, depth and repetition by alias.

use std::fmt;

use serde::{Deserialize, de::DeserializeOwned};

mod stream;

/// The largest file that is read, in bytes.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// The most documents in a file.
pub(crate) const MAX_DOCUMENTS: usize = 1000;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    pub(crate) file: String,
    /// From 1, counted from the start of the file; 0 where the error is not at a line.
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// What a Kubernetes object says of itself before its kind is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Head {
    pub(crate) api_version: String,
    pub(crate) kind: String,
}

/// One document of a file: its head is known, the rest not read yet.
pub(crate) struct Document<'a> {
    file: &'a str,
    line: usize,
    input: serde_yaml::Deserializer<'a>,
    pub(crate) head: Head,
}

impl Document<'_> {
    /// Reads the document as a `T`.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn read<T: DeserializeOwned>(self) -> Result<T, Error> {
        T::deserialize(self.input).map_err(|error| stream::error(self.file, self.line, &error))
    }

    /// An error about the document as a whole, for what only the caller can judge.
    pub(crate) fn error(&self, message: impl fmt::Display) -> Error {
        Error { file: self.file.to_owned(), line: self.line, message: message.to_string() }
    }
}

/// Calls `each` for every document that is not empty, and collects what it makes of them.
///
/// # Errors
/// The first error, of the text or of `each`; nothing of a broken file is used.
pub(crate) fn documents<'a, T>(
    file: &'a str,
    text: &'a str,
    each: impl FnMut(Document<'a>) -> Result<Option<T>, Error>,
) -> Result<Vec<T>, Error> {
    stream::documents(file, text, each)
}

#[cfg(test)]
mod tests;
