//! `worker completions`: a completion script.

use clap::Args;
use clap_complete::Shell;

const AFTER_HELP: &str = "Example:\n  worker completions bash > /etc/bash_completion.d/worker";

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct CompletionsArgs {
    shell: Shell,
}

pub(super) fn execute(args: &CompletionsArgs, mut command_line: clap::Command) {
    clap_complete::generate(args.shell, &mut command_line, "worker", &mut std::io::stdout());
}
