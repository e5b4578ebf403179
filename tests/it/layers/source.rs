//! Rust text as the layer test needs it: without comments, literals and test modules, and the paths it names.

/// The code alone: comments and the insides of literals become nothing, lines stay where they are.
pub(super) fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            'r' | 'b' if !ends_in_word(&out) => raw_string(rest).unwrap_or(0),
            '"' => quoted(rest, '"'),
            '\'' => character(rest).unwrap_or(0),
            _ => 0,
        };
        if skipped == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            rest = &rest[skipped..];
        }
    }
    out
}

/// `code` without its inline test modules.
pub(super) fn without_tests(code: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(code.len()), code);
    while let Some(at) = rest.find("#[cfg(test)]") {
        let after = &rest[at..];
        out.push_str(&rest[..at]);
        rest = match (after.find('{'), after.find(';')) {
            // `#[cfg(test)] mod tests;`, a file of its own.
            (Some(open), Some(end)) if end < open => &after[end + 1..],
            (None, Some(end)) => &after[end + 1..],
            (Some(open), _) => &after[open + braces(&after[open..])..],
            (None, None) => "",
        };
    }
    out + rest
}

/// The top-level modules that `code` of the module `module` names, by `crate::a`, `crate::{a, b}` or enough `super`s.
pub(super) fn named_modules(code: &str, module: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if !ends_in_word(&code[..at]) {
            heads(&code[at + "crate::".len()..], &mut found);
        }
    }
    for (at, _) in code.match_indices("super::") {
        if ends_in_word(&code[..at]) || code[..at].ends_with("super::") {
            continue;
        }
        let (mut rest, mut supers) = (&code[at..], 0);
        while let Some(next) = rest.strip_prefix("super::") {
            (rest, supers) = (next, supers + 1);
        }
        if supers == module.len() {
            heads(rest, &mut found);
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The first name of each path in a use tree: `a::b` gives a, `{a::b, c}` gives a and c.
fn heads(tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim_start();
    if !tree.starts_with('{') {
        let name: String = tree.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        // A name with a capital is an item of the crate's root, not a module.
        if name.starts_with(|c: char| c.is_lowercase()) {
            found.push(name);
        }
        return;
    }
    let inside = &tree[1..braces(tree).saturating_sub(1).max(1)];
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inside.char_indices().chain([(inside.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads(&inside[start..at], found);
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The length of the block that opens at the start of `text`.
fn braces(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<usize> {
    let body = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let open = body[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = open.find(&close)? + close.len();
    Some(text.len() - open.len() + end)
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character literal; `None` for a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut chars = text.chars().skip(1);
    match (chars.next()?, chars.next()?) {
        ('\\', _) => Some(quoted(text, '\'')),
        (c, '\'') => Some(c.len_utf8() + 2),
        _ => None,
    }
}

fn ends_in_word(text: &str) -> bool {
    text.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}
