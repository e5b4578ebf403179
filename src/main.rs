//! The `mesh` executable: everything lives in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh::cli::main()
}
