//! `mesh version`: which mesh this is.

use std::process::ExitCode;

use super::ui;

#[derive(Debug, clap::Args)]
#[command(about = "Print the version")]
pub(super) struct Args {
    /// Only the number.
    #[arg(long)]
    short: bool,
    /// `text`, or `json` for machines.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    let text = match args.output {
        Output::Json => format!("{}\n", serde_json::json!({ "schema": "mesh.dev/version/v1", "version": version })),
        Output::Text if args.short => format!("{version}\n"),
        Output::Text => format!("mesh {version}\n"),
    };
    ui::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
