use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::rt::clock;

fn all(text: &str) -> Result<Vec<(String, Value)>, Error> {
    documents("a.yaml", text, |document| {
        let kind = document.head.kind.clone();
        Ok(Some((kind, document.read()?)))
    })
}

#[test]
fn an_error_names_the_line_of_the_whole_file() {
    let text = "# shop\nkind: A\n---\nkind: B\nspec:\n  - 1\n---\nkind: C\nspec: [1, 2\nname: x\n";
    let error = all(text).expect_err("a bracket is missing");
    assert_eq!((error.file.as_str(), error.line), ("a.yaml", 10), "{error}");
    assert!(!error.message.contains("at line 10"), "the place is said once: {error}");
}

#[test]
fn a_value_of_the_wrong_type_is_found_in_its_document() {
    #[derive(Debug, Deserialize)]
    struct Typed {
        #[serde(rename = "port")]
        _port: u16,
    }
    let text = "kind: A\nport: 1\n---\n\nkind: B\nport: http\n";
    let error = documents("a.yaml", text, |d| d.read::<Typed>().map(Some)).expect_err("no number");
    assert_eq!(error.line, 6, "{error}");
    assert_eq!(error.to_string(), format!("a.yaml:6: {}", error.message));
}

#[test]
fn an_error_of_the_caller_names_the_start_of_the_document() {
    let text = "---\n# one\nkind: A\n---\n---\n# two\nkind: B\n";
    let lines = documents("a.yaml", text, |d| Ok(Some(d.error("no").line))).expect("no syntax error");
    assert_eq!(lines, [3, 7]);
}

#[test]
fn json_is_read_as_it_is() {
    let found = all("{\"kind\": \"Service\", \"spec\": {\"ports\": [{\"port\": 80}]}}").expect("JSON");
    assert_eq!(found[0].0, "Service");
    assert_eq!(found[0].1["spec"]["ports"][0]["port"], 80);
}

#[test]
fn empty_documents_are_no_documents() {
    assert_eq!(all("").expect("empty"), []);
    assert_eq!(all("---\n---\n# nothing\n---\n").expect("empty"), []);
}

#[test]
fn bombs_fail_quickly() {
    let begun = clock::now();
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let last = format!("*a{}", level - 1);
        laughs.push_str(&format!("a{level}: &a{level} [{}]\n", vec![last; 9].join(", ")));
    }
    assert!(all(&laughs).is_err());
    for opening in ["[", "{", "[\n", "{a: "] {
        let deep = all(&format!("a: {}", opening.repeat(100_000))).expect_err("too deep");
        assert!(deep.message.contains("deep"), "{deep}");
    }
    assert!(all(&format!("a: [{}]", "1, ".repeat(MAX_BYTES / 4))).is_ok(), "wide is not deep");
    assert!(all(&"---\nkind: A\n".repeat(MAX_DOCUMENTS + 1)).is_err());
    assert!(all(&" ".repeat(MAX_BYTES + 1)).is_err());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

proptest! {
    #[test]
    fn hostile_text_is_refused_without_a_panic(text in "[ \\-\\[\\]{}:&*!|>'\"%@a-c#,\\n\\t0]{0,120}") {
        let _ = all(&text);
    }
}
