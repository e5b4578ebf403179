//! A real directory, watched.

use super::*;

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{ name: {name} }}\n")
}

/// Waits for the next wake-up that brings changes.
async fn next(source: &mut FileSource) -> usize {
    for _ in 0..20 {
        source.changed().await;
        match source.scan().len() {
            0 => {}
            changes => return changes,
        }
    }
    0
}

#[tokio::test]
async fn files_come_and_go_with_their_directories() {
    let dir = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(dir.path()).unwrap();
    fs::create_dir(root.join(".mesh")).unwrap();
    for (path, name) in [("a.yaml", "a"), (".mesh/hidden.yaml", "b"), (".draft.yaml", "c"), ("notes.txt", "d")] {
        fs::write(root.join(path), service(name)).unwrap();
    }
    let mut source = FileSource::open(&root, kinds::Settings::default());
    assert_eq!((source.scan().len(), source.files().len()), (1, 1));
    fs::create_dir_all(root.join("more/below")).unwrap();
    fs::write(root.join("more/below/e.yml"), service("e")).unwrap();
    assert_eq!(next(&mut source).await, 1);
    fs::rename(root.join("more"), root.join("moved")).unwrap();
    next(&mut source).await;
    assert!(source.files().errors().next().is_none());
    assert_eq!(source.files().len(), 2);
    fs::remove_dir_all(root.join("moved")).unwrap();
    assert_eq!(next(&mut source).await, 1);
    assert_eq!(source.files().len(), 1);
}

#[tokio::test]
async fn a_rewrite_of_the_same_length_in_the_same_instant_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(dir.path()).unwrap();
    fs::write(root.join("a.yaml"), service("a")).unwrap();
    let mut source = FileSource::open(&root, kinds::Settings::default());
    source.scan();
    fs::write(root.join("a.yaml"), service("b")).unwrap();
    assert_eq!(next(&mut source).await, 2, "one is gone, one is new");
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_of_that_file() {
    let dir = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(dir.path()).unwrap();
    fs::write(root.join("big.yaml"), " ".repeat(yaml::MAX_BYTES + 1)).unwrap();
    fs::write(root.join("binary.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    let mut source = FileSource::open(&root, kinds::Settings::default());
    assert_eq!(source.scan().len(), 0);
    let files: Vec<_> = source.files().errors().map(|error| error.file.as_str()).collect();
    assert_eq!(files, ["big.yaml", "binary.yaml"]);
}
