//! `holdfast config`: is it right, and what is in force.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::error::CliError;
use super::{DoorArgs, NodeArgs, output};

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a file, together with the environment.
    Check {
        /// [default: what `holdfast serve` would read]
        file: Option<PathBuf>,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Print what is in force, each value with where it came from; secrets are masked.
    Show {
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        doors: DoorArgs,
    },
    /// Print the commented default file.
    Default,
}

pub(super) fn run(arguments: &ConfigArgs) -> Result<(), CliError> {
    match &arguments.command {
        ConfigCommand::Check { file, node } => {
            let file = file
                .clone()
                .or_else(|| crate::config::file_or_system(node.config.as_deref()));
            let what = file
                .as_ref()
                .map_or("defaults and environment".to_owned(), |file| {
                    file.display().to_string()
                });
            node.load_from(file, None)?;
            output::line(format_args!("{what}: ok"))
        }
        ConfigCommand::Show { node, doors } => {
            output::bytes(node.load(Some(doors))?.show()?.as_bytes())
        }
        ConfigCommand::Default => output::bytes(crate::config::DEFAULT_FILE.as_bytes()),
    }
}
