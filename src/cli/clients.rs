//! `holdfast clients`: who may sign in, kept in the log of a node that is not running.
//!
//! It opens the data directory itself; the log's lock keeps it and a running node apart.

use clap::{Args, Subcommand};
use holdfast_storage::log::{Log, OpenError};

use super::error::CliError;
use super::lifecycle::{self, block_on};
use super::{NodeArgs, output};
use crate::auth::Auth;
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct ClientsArgs {
    #[command(subcommand)]
    command: ClientsCommand,
}

#[derive(Debug, Subcommand)]
enum ClientsCommand {
    /// Make a client, or give an existing one a new secret; the secret is printed this once.
    Create {
        /// Its client id: what it signs in with.
        name: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Print the id of every client.
    List {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Delete a client and revoke its tokens.
    Delete {
        name: String,
        #[command(flatten)]
        node: NodeArgs,
    },
}

pub(super) fn run(arguments: &ClientsArgs) -> Result<(), CliError> {
    let (ClientsCommand::Create { node, .. }
    | ClientsCommand::List { node }
    | ClientsCommand::Delete { node, .. }) = &arguments.command;
    let config = node.load(None)?.config;
    lifecycle::refuse_foreign_data_dir(&config.node.data_dir)?;
    let runtime = lifecycle::runtime(&config.node)?;
    block_on(runtime, edit(&arguments.command, config))
}

async fn edit(command: &ClientsCommand, config: Config) -> Result<(), CliError> {
    let options = config.log_options();
    let log = tokio::task::spawn_blocking(move || Log::open(options))
        .await
        .map_err(CliError::failed)?
        .map_err(|e| opening(&e))?;
    let auth = Auth::open_with(log.clone(), config.auth)
        .await
        .map_err(CliError::failed)?;
    let result = apply(command, &auth).await;
    tokio::task::spawn_blocking(move || log.close())
        .await
        .map_err(CliError::failed)?;
    result
}

fn opening(error: &OpenError) -> CliError {
    match error {
        OpenError::Locked(_) => {
            CliError::failed(format!("{error}: clients are edited while it is stopped"))
        }
        error => CliError::opening(error),
    }
}

async fn apply(command: &ClientsCommand, auth: &Auth) -> Result<(), CliError> {
    match command {
        ClientsCommand::Create { name, .. } => {
            let secret = auth.create_client(name).await.map_err(CliError::failed)?;
            output::line(format_args!("client_id {name}\nclient_secret {secret}"))
        }
        ClientsCommand::List { .. } => auth
            .clients()
            .iter()
            .try_for_each(|id| output::line(format_args!("{id}"))),
        ClientsCommand::Delete { name, .. } => {
            match auth.delete_client(name).await.map_err(CliError::failed)? {
                true => output::line(format_args!("deleted {name}")),
                false => Err(CliError::failed(format!("there is no client {name:?}"))),
            }
        }
    }
}
