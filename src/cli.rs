//! The command line: what can be typed, one file a command under `cli/`, and the exit code.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done (a closed pipe counts as done) |
//! | 1 | failed: `error: …` on stderr, then at most one `hint: …` |
//! | 2 | usage |

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod controller;
mod demo;
mod demo_service;
mod edges;
mod exec_with_parent;
mod live;
mod proxy;
mod run;
mod scope;
mod stat;
mod table;
mod ui;
mod version;

#[derive(Debug, Parser)]
#[command(name = "mesh", version, about = "A service mesh in one executable", propagate_version = false)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Controller(controller::Args),
    Demo(demo::Args),
    Edges(edges::Args),
    #[command(hide = true)]
    Proxy(Box<proxy::Args>),
    Run(run::Args),
    Stat(stat::Args),
    Version(version::Args),
    DemoService(demo_service::Args),
    ExecWithParent(exec_with_parent::Args),
}

/// Parses the arguments, runs the command and turns its end into an exit code.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Controller(args) => controller::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Edges(args) => edges::run(args),
        Command::Proxy(args) => proxy::run(*args),
        Command::Run(args) => run::run(args),
        Command::Stat(args) => stat::run(args),
        Command::Version(args) => version::run(args),
        Command::DemoService(args) => demo_service::run(args),
        Command::ExecWithParent(args) => exec_with_parent::run(&args),
    };
    ui::exit_code(outcome)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
