//! The README's commands, as somebody types them who has just cloned the repository.
//!
//! `cargo run … demo` is run for real by the demo's tests and by CI, `cargo test` is this; everything else in the `sh`
//! blocks is run here, in one shell, with other ports.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use crate::support::require;

/// Commands that are exercised elsewhere, word for word.
const ELSEWHERE: &[&str] = &["cargo run --release -- demo --for 20s", "cargo test"];

/// What a person does without thinking: waits until the last thing typed has come up, and tries again.
const PRELUDE: &str = r#"
set -u
retry() {
  local said
  for _ in $(seq 200); do
    if said=$("$@" 2>&1); then printf '%s\n' "$said"; return; fi
    sleep 0.1
  done
  echo "never worked: $*: $said" >&2
  exit 1
}
curl() { retry command curl --silent --show-error "$@"; }
mesh() {
  case $1 in
    controller) exec "$MESH" "$@" ;;
    run) retry "$MESH" stat >/dev/null; exec "$MESH" "$@" ;;
    *) "$MESH" "$@" ;;
  esac
}
"#;

/// After the last command: ends what is still in the background.
const EPILOGUE: &str = "\nkill $(jobs -p); wait\n";

#[test]
fn every_command_of_the_readme_works() {
    for program in [("python3", "python3"), ("curl", "curl"), ("jq", "jq")] {
        if require::program(program.0, program.1).is_none() {
            return;
        }
    }
    let typed: Vec<String> = commands(include_str!("../../README.md"))
        .into_iter()
        .filter(|command| !ELSEWHERE.contains(&command.as_str()))
        .collect();
    assert!(typed.iter().any(|command| command.starts_with("mesh run")), "{typed:#?}");

    let home = tempfile::tempdir().expect("a directory");
    let (port, upstream) = (free_port(), free_port());
    let typed = typed.join("\n").replace("8080", &port.to_string()).replace("7001", &upstream.to_string());
    let script = [PRELUDE, &typed, EPILOGUE].concat();
    let child = Command::new("timeout")
        .args(["--kill-after=5", &LIMIT.as_secs().to_string(), "bash", "-c", &script])
        .current_dir(home.path())
        .env("MESH", env!("CARGO_BIN_EXE_mesh"))
        .env("MESH_LOCAL_DIR", home.path().join("registry"))
        .env("MESH_LOG", "warn")
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    let (said, complained) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("Directory listing"), "curl: {said}\n{complained}");
    assert!(said.contains("LATENCY_P99") && said.contains("100.00%"), "stat: {said}\n{complained}");
    assert!(
        said.contains("CLIENT_ID") && said.contains("spiffe://local/ns/default/sa/client"),
        "edges: {said}\n{complained}"
    );
    assert!(said.contains("\"rps\":"), "jq: {said}\n{complained}");
}

const LIMIT: Duration = Duration::from_secs(90);

/// The lines of the `sh` blocks.
fn commands(readme: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            command if inside => commands.push(command.to_owned()),
            _ => {}
        }
    }
    commands
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback address");
    listener.local_addr().expect("a bound socket").port()
}
