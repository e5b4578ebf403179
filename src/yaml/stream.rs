//! Many documents in one text, each with the line it starts at.

use serde::Deserialize;

use super::{Document, Error, Head, MAX_BYTES, MAX_DOCUMENTS};

pub(super) fn documents<'a, T>(
    file: &'a str,
    text: &'a str,
    mut each: impl FnMut(Document<'a>) -> Result<Option<T>, Error>,
) -> Result<Vec<T>, Error> {
    let whole = |message: String| Error { file: file.to_owned(), line: 0, message };
    if text.len() > MAX_BYTES {
        return Err(whole(format!("the file is larger than {MAX_BYTES} bytes")));
    }
    if let Some(line) = too_deep(text) {
        return Err(Error { line, ..whole(format!("brackets are nested more than {MAX_BRACKETS} deep")) });
    }
    let starts = starts(text);
    let mut found = Vec::new();
    // Each document is read twice, once for its kind: reading the typed value from a generic one would lose the lines.
    let heads = serde_yaml::Deserializer::from_str(text);
    for (index, (head, input)) in heads.zip(serde_yaml::Deserializer::from_str(text)).enumerate() {
        if index == MAX_DOCUMENTS {
            return Err(whole(format!("the file holds more than {MAX_DOCUMENTS} documents")));
        }
        let line = starts.get(index).copied().unwrap_or_default();
        let head = Option::<Head>::deserialize(head).map_err(|e| error(file, line, &e))?;
        let Some(head) = head else { continue };
        found.extend(each(Document { file, line, input, head })?);
    }
    Ok(found)
}

/// The parser takes time by the square of open brackets, long before serde_yaml's own limit of depth is asked: a
/// hundred thousand of them are a minute and a half. Brackets in text count too, so the bound is far from what is sane.
const MAX_BRACKETS: usize = 1000;

fn too_deep(text: &str) -> Option<usize> {
    let (mut depth, mut line) = (0_usize, 1);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'\n' => line += 1,
            _ => {}
        }
        if depth > MAX_BRACKETS {
            return Some(line);
        }
    }
    None
}

/// The line of each document's first content, from 1. Only a document marker can be `---` at the start of a line: YAML
/// forbids it inside of scalars.
fn starts(text: &str) -> Vec<usize> {
    let marker =
        |line: &str| line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
    let content = |line: &str| !(line.trim().is_empty() || line.trim_start().starts_with('#') || line.starts_with('%'));
    let mut starts: Vec<usize> = Vec::new();
    // Whether the last start is only that of a marker, whose content is yet to come.
    let mut pending = false;
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim_end_matches('\r'))) {
        if marker(line) {
            starts.push(number);
            pending = true;
        } else if content(line) && line != "..." {
            match starts.last_mut() {
                Some(start) if pending => *start = number,
                Some(_) => {}
                None => starts.push(number),
            }
            pending = false;
        }
    }
    starts
}

/// serde_yaml's error with the place taken out of the text; without a place of its own, that of the document.
pub(super) fn error(file: &str, document: usize, error: &serde_yaml::Error) -> Error {
    let text = error.to_string();
    let message = match error.location() {
        Some(at) => text.replace(&format!(" at line {} column {}", at.line(), at.column()), ""),
        None => text,
    };
    Error { file: file.to_owned(), line: error.location().map_or(document, |at| at.line()), message }
}
