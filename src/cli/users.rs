//! `holdfast users`: who may sign in, kept in the log of a node that is not running.
//!
//! It opens the data directory itself; the log's lock keeps it and a running node apart. Passwords come
//! from the terminal or from stdin, never from the command line, which others can read.

use clap::{Args, Subcommand};
use holdfast_storage::log::{Log, OpenError};
use jiff::{SignedDuration, Timestamp};

use super::error::CliError;
use super::lifecycle::{self, block_on};
use super::{NodeArgs, output, password};
use crate::auth::{Auth, TokenOptions, User};
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct UsersArgs {
    #[command(subcommand)]
    command: UsersCommand,
}

#[derive(Debug, Subcommand)]
enum UsersCommand {
    /// Make a user with a machine token, which is printed this once, or with a password.
    Create {
        name: String,
        /// Ask for a password (or read it from stdin) instead of making a token.
        #[arg(long, conflicts_with_all = ["label", "expires_days"])]
        password: bool,
        #[command(flatten)]
        scram: ScramArgs,
        #[command(flatten)]
        token: TokenArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Print every user and what they can sign in with.
    List {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Delete a user and everything issued to them.
    Delete {
        name: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Give a user another password, asked for or read from stdin.
    SetPassword {
        name: String,
        #[command(flatten)]
        scram: ScramArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Make one more machine token for a user; it is printed this once.
    AddToken {
        name: String,
        #[command(flatten)]
        token: TokenArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Delete a machine token.
    DeleteToken {
        name: String,
        /// As `list` shows it.
        id: String,
        #[command(flatten)]
        node: NodeArgs,
    },
}

#[derive(Debug, Args)]
struct ScramArgs {
    /// Keep no SCRAM verifiers: the password is kept as Argon2id alone, and works where it is sent in
    /// the clear (SASL PLAIN, MQTT, HTTP).
    #[arg(long)]
    no_scram: bool,
}

#[derive(Debug, Args)]
struct TokenArgs {
    /// What the token is for.
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// Days until the token expires [default: never]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    expires_days: Option<u32>,
}

impl TokenArgs {
    fn options(&self) -> Result<TokenOptions, CliError> {
        let expiry = |days: u32| {
            let lifetime = SignedDuration::from_hours(24 * i64::from(days));
            Timestamp::now().checked_add(lifetime)
        };
        let expires_at = self.expires_days.map(expiry).transpose();
        let expires_at = expires_at.map_err(CliError::failed)?;
        Ok(TokenOptions {
            expires_at_ms: expires_at.map(Timestamp::as_millisecond),
            label: self.label.clone(),
        })
    }
}

impl UsersCommand {
    fn node(&self) -> &NodeArgs {
        let (UsersCommand::Create { node, .. }
        | UsersCommand::List { node }
        | UsersCommand::Delete { node, .. }
        | UsersCommand::SetPassword { node, .. }
        | UsersCommand::AddToken { node, .. }
        | UsersCommand::DeleteToken { node, .. }) = self;
        node
    }
}

pub(super) fn run(arguments: &UsersArgs) -> Result<(), CliError> {
    if let UsersCommand::Create {
        password: false,
        scram: ScramArgs { no_scram: true },
        ..
    } = &arguments.command
    {
        return Err(CliError::failed(
            "--no-scram is about a password: --password",
        ));
    }
    let config = arguments.command.node().load(None)?.config;
    lifecycle::refuse_foreign_data_dir(&config.node.data_dir)?;
    let runtime = lifecycle::runtime(&config.node)?;
    block_on(runtime, edit(&arguments.command, config))
}

async fn edit(command: &UsersCommand, config: Config) -> Result<(), CliError> {
    let options = config.log_options();
    let log = tokio::task::spawn_blocking(move || Log::open(options))
        .await
        .map_err(CliError::failed)?
        .map_err(|e| opening(&e))?;
    let result = match Auth::open_with(log.clone(), config.auth).await {
        Ok(auth) => apply(command, &auth).await,
        Err(error) => Err(CliError::failed(error)),
    };
    tokio::task::spawn_blocking(move || log.close())
        .await
        .map_err(CliError::failed)?;
    result
}

fn opening(error: &OpenError) -> CliError {
    match error {
        OpenError::Locked(_) => {
            CliError::failed(format!("{error}: users are edited while it is stopped"))
        }
        error => CliError::opening(error),
    }
}

async fn apply(command: &UsersCommand, auth: &Auth) -> Result<(), CliError> {
    match command {
        UsersCommand::Create {
            name,
            password: true,
            scram,
            ..
        } => {
            let password = password::read()?;
            let created = auth.create_user(name, &password, !scram.no_scram).await;
            created.map_err(CliError::failed)?;
            output::line(format_args!("created {name}"))
        }
        UsersCommand::Create { name, token, .. } => {
            let created = auth.create_machine(name, token.options()?).await;
            let token = created.map_err(CliError::failed)?;
            output::line(format_args!("user {name}\ntoken {}", token.text))
        }
        UsersCommand::List { .. } => auth
            .users()
            .iter()
            .try_for_each(|(name, user)| output::line(format_args!("{name}\t{}", summary(user)))),
        UsersCommand::Delete { name, .. } => {
            match auth.delete_user(name).await.map_err(CliError::failed)? {
                true => output::line(format_args!("deleted {name}")),
                false => Err(CliError::failed(format!("there is no user {name:?}"))),
            }
        }
        UsersCommand::SetPassword { name, scram, .. } => {
            let password = password::read()?;
            let set = auth.set_password(name, &password, !scram.no_scram).await;
            set.map_err(CliError::failed)?;
            output::line(format_args!("{name} has another password"))
        }
        UsersCommand::AddToken { name, token, .. } => {
            let added = auth.add_token(name, token.options()?).await;
            let token = added.map_err(CliError::failed)?;
            output::line(format_args!("user {name}\ntoken {}", token.text))
        }
        UsersCommand::DeleteToken { name, id, .. } => {
            let deleted = auth.delete_token(name, id).await;
            match deleted.map_err(CliError::failed)? {
                true => output::line(format_args!("deleted token {id} of {name}")),
                false => Err(CliError::failed(format!("{name} has no token {id:?}"))),
            }
        }
    }
}

/// What somebody can sign in with, in one line.
fn summary(user: &User) -> String {
    let mut parts = Vec::new();
    if user.has_argon2_hash() {
        parts.push("password".to_owned());
    }
    let verifiers = user.scram_credentials().iter();
    parts.extend(verifiers.map(|one| one.mechanism().to_string()));
    for token in user.tokens() {
        let mut text = format!("token {}", token.id());
        if let Some(label) = &token.label {
            text += &format!(" {label:?}");
        }
        if let Some(expiry) = token.expires_at_ms {
            match Timestamp::from_millisecond(expiry) {
                Ok(expiry) => text += &format!(" until {expiry:.0}"),
                Err(_) => text += " without end",
            }
        }
        parts.push(text);
    }
    parts.join(", ")
}
