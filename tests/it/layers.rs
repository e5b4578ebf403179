//! Holds the source tree to its layers: who may name whom (the table in `src/lib.rs`), how long a file may be, what it
//! may be called, and which crates are kept behind one module.

use std::{collections::BTreeMap, fs, path::Path};

mod source;

/// Net lines, without test modules: the cap, and where a file should be thought of as two.
const MAX_LINES: usize = 700;
const LONG_LINES: usize = 450;

/// Files that are one long table, and may be longer than the cap.
const TABLES: &[&str] = &[];

/// Modules of one layer that do not see each other in either direction; else one sees those to its left.
const BLIND: &[&[&str]] = &[&["tls", "api", "yaml", "k8s", "redirect", "image"], &["proxy", "controller"]];

/// Crates that only some places may name.
const KEPT: &[(&str, &[&str])] = &[
    ("serde_yaml", &["src/yaml.rs", "src/yaml/"]),
    ("kube", &["src/k8s.rs", "src/k8s/", "src/controller.rs", "src/controller/"]),
    ("prometheus_parse", &["src/query/decode.rs", "src/query/decode/"]),
];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] =
    &["utils", "util", "helpers", "helper", "common", "manager", "handler", "misc", "types", "mod"];

struct File {
    path: String,
    text: String,
}

/// A module's layer, from the bottom, and its place in it, from the left.
type Layers = BTreeMap<String, (usize, usize)>;

#[test]
fn the_source_tree_keeps_to_its_layers() {
    let mut files = Vec::new();
    read(Path::new(env!("CARGO_MANIFEST_DIR")), Path::new("src"), &mut files);
    assert!(files.len() > 10, "found only {} files", files.len());
    for (path, lines) in files.iter().map(|f| (&f.path, net_lines(&f.text))).filter(|(_, lines)| *lines > LONG_LINES) {
        eprintln!("long: {path} has {lines} net lines (cap {MAX_LINES})");
    }
    let wrong = check(&files);
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_checker_finds_what_it_is_there_for() {
    let table = "//! ```text\n//! cli      what is typed\n//! proxy   controller   local    roles\n//! query    pure\n\
                 //! tls   api    outside\n//! model   words\n//! units   rt   ground\n//! ```\n";
    let mods = "mod cli;mod proxy;mod controller;mod local;mod query;mod tls;mod api;mod model;mod units;mod rt;";
    let long = format!("//! x\n{}", "fn f() {}\n".repeat(MAX_LINES + 1));
    let with_tests = format!("//! x\n#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(MAX_LINES + 1));
    let cases: &[(&str, &str, Option<&str>)] = &[
        ("src/model.rs", "//! x\nuse crate::tls::Identity;", Some("model may not use tls")),
        ("src/proxy/http.rs", "//! x\nuse crate::{model, controller::Index};", Some("proxy may not use controller")),
        ("src/controller.rs", "//! x\nfn f() { crate::proxy::run() }", Some("controller may not use proxy")),
        ("src/api.rs", "//! x\nuse crate::tls;", Some("api may not use tls")),
        ("src/tls.rs", "//! x\nuse crate::api;", Some("tls may not use api")),
        ("src/units/size.rs", "//! x\nuse super::super::rt;", Some("units may not use rt")),
        ("src/rt/clock.rs", "//! x\nuse crate::units;", None),
        ("src/local.rs", "//! x\nuse crate::{proxy::Config, controller};", None),
        ("src/query/decode.rs", "//! x\nuse prometheus_parse::Scrape;", None),
        ("src/query.rs", "//! x\nuse prometheus_parse::Scrape;", Some("may not name `prometheus_parse`")),
        ("src/proxy.rs", "//! x\nuse kube::Client;", Some("may not name `kube`")),
        ("src/proxy.rs", "//! x\nuse my_kube::Client;", None),
        ("src/local/spec.rs", "//! x\nlet x = serde_yaml::from_str(y);", Some("may not name `serde_yaml`")),
        (
            "src/model.rs",
            "//! x\n// crate::tls\nconst A: &str = \"crate::tls \\\" \"; const B: char = '\"'; /* crate::tls */",
            None,
        ),
        (
            "src/model.rs",
            "//! x\nconst A: &str = r#\"\"crate::tls\"#; fn f<'a>(x: &'a str) {} use crate::proxy;",
            Some("model may not use proxy"),
        ),
        ("src/model.rs", "//! x\n#[cfg(test)]\nmod tests { use crate::tls; }\nfn g() {}", None),
        ("src/model.rs", "//! x\n#[cfg(test)]\nmod tests;\nuse crate::tls;", Some("model may not use tls")),
        ("src/model/tests.rs", "//! x\nuse super::*;", None),
        ("src/query/window.rs", &long, Some("net lines, more than")),
        ("src/query/window.rs", &with_tests, None),
        ("src/query/utils.rs", "//! x", Some("a name that says nothing")),
        ("src/query/mod.rs", "//! x", Some("a name that says nothing")),
        ("src/query/window.rs", "use crate::model;", Some("does not open with `//!`")),
        ("src/novel.rs", "//! x", Some("novel is not in the table")),
    ];
    for (path, text, expected) in cases {
        let lib = format!("{table}{mods}{}", if *path == "src/novel.rs" { "mod novel;" } else { "" });
        let files = [("src/lib.rs", lib.as_str()), (path, text)]
            .map(|(path, text)| File { path: path.to_owned(), text: text.to_owned() });
        let wrong = check(&files);
        match expected {
            Some(expected) => assert!(wrong.iter().any(|w| w.contains(expected)), "{path}: {text}\ngave {wrong:?}"),
            None => assert!(wrong.is_empty(), "{path}: {text}\ngave {wrong:?}"),
        }
    }
}

/// Everything wrong with a source tree, a line each.
fn check(files: &[File]) -> Vec<String> {
    let lib = files.iter().find(|f| f.path == "src/lib.rs").expect("there is a library");
    let layers = layers(&lib.text);
    let mut wrong = Vec::new();
    for module in declared(&lib.text).iter().filter(|module| !layers.contains_key(*module)) {
        wrong.push(format!("src/lib.rs: {module} is not in the table of layers"));
    }
    for file in files {
        wrong.extend(check_shape(file));
        let module = module(&file.path);
        let Some(own) = module.first().filter(|top| layers.contains_key(**top)) else { continue };
        let code = source::without_tests(&source::code(&file.text));
        for named in source::named_modules(&code, &module) {
            if !may_use(&layers, own, &named) {
                wrong.push(format!("{}: {own} may not use {named}", file.path));
            }
        }
    }
    wrong
}

fn check_shape(file: &File) -> Vec<String> {
    let File { path, text } = file;
    let mut wrong = Vec::new();
    let lines = net_lines(text);
    if lines > MAX_LINES && !TABLES.contains(&path.as_str()) {
        wrong.push(format!("{path}: {lines} net lines, more than {MAX_LINES}"));
    }
    if !text.starts_with("//!") {
        wrong.push(format!("{path}: does not open with `//!`, what it is for"));
    }
    if module(path).iter().any(|name| EMPTY_NAMES.contains(name)) {
        wrong.push(format!("{path}: a name that says nothing of what is inside"));
    }
    let code = source::code(text);
    for (name, places) in KEPT {
        let named = code.match_indices(&format!("{name}::")).any(|(at, _)| !code[..at].ends_with(is_word));
        if named && !places.iter().any(|place| path.starts_with(place)) {
            wrong.push(format!("{path}: may not name `{name}`; only {} may", places.join(", ")));
        }
    }
    wrong
}

fn may_use(layers: &Layers, own: &str, other: &str) -> bool {
    let (Some(mine), Some(theirs)) = (layers.get(own), layers.get(other)) else { return true };
    let blind = BLIND.iter().any(|group| group.contains(&own) && group.contains(&other));
    own == other || theirs.0 < mine.0 || (theirs.0 == mine.0 && theirs.1 < mine.1 && !blind)
}

/// Reads the table: a layer each line, the topmost first; names, then in the last column what they are.
fn layers(lib: &str) -> Layers {
    let table = lib.split("//! ```text\n").nth(1).and_then(|rest| rest.split("//! ```").next()).expect("the table");
    let mut layers = Layers::new();
    for (height, line) in table.lines().rev().enumerate() {
        let columns: Vec<&str> =
            line.trim_start_matches("//!").split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        for (place, name) in columns[..columns.len() - 1].iter().enumerate() {
            layers.insert((*name).to_owned(), (height, place));
        }
    }
    layers
}

/// The modules that the library declares.
fn declared(lib: &str) -> Vec<String> {
    let code = source::code(lib);
    let words: Vec<&str> = code.split(|c: char| !is_word(c)).filter(|w| !w.is_empty()).collect();
    words.windows(2).filter(|pair| pair[0] == "mod").map(|pair| pair[1].to_owned()).collect()
}

/// `src/proxy/http.rs` is proxy, http.
fn module(path: &str) -> Vec<&str> {
    path.trim_start_matches("src/")
        .trim_end_matches(".rs")
        .split('/')
        .filter(|part| !matches!(*part, "lib" | "main"))
        .collect()
}

/// Lines outside test modules; a file of tests has none.
fn net_lines(text: &str) -> usize {
    source::without_tests(&source::code(text)).lines().count()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn read(root: &Path, under: &Path, files: &mut Vec<File>) {
    let entries = fs::read_dir(root.join(under)).expect("a directory of sources");
    for entry in entries.map(|entry| entry.expect("an entry")) {
        let path = under.join(entry.file_name());
        if entry.path().is_dir() {
            read(root, &path, files);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(entry.path()).expect("UTF-8");
            files.push(File { path: path.to_string_lossy().into_owned(), text });
        }
    }
}
