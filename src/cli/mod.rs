//! The command line: what can be asked of the binary, and how it answers.
//!
//! Owns: arguments, exit codes, what is written to stdout (results) and stderr (the node's log and
//! one sentence per failure). A command is one module; none of them holds a rule of the node.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done, or stopped in order |
//! | 1 | failed; the sentence on stderr says why |
//! | 2 | the command line was not understood |
//! | 74 | the log could not be opened or written |
//! | 78 | the configuration was refused |
//! | 130 | a second signal cut the shutdown short |

mod config;
mod consume;
mod demo;
mod doctor;
mod error;
mod lifecycle;
mod logging;
mod notify;
mod output;
mod password;
mod produce;
mod remote;
mod serve;
mod simulate;
mod topics;
mod users;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{Config, Flag, Loaded, Sources, file_or_system};
use error::CliError;

/// MQTT, HTTP and Kafka in front of one durable log.
///
/// Settings are taken from the command line, then from the environment
/// (HOLDFAST_<SECTION>__<KEY>), then from the configuration file, then from the defaults.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version = VERSION, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node.
    Serve(serve::ServeArgs),
    /// Run the node together with simulated devices, to look around.
    Demo(demo::DemoArgs),
    /// Publish as a fleet of simulated devices to an MQTT broker.
    Simulate(simulate::SimulateArgs),
    /// The topics of a running node.
    Topics(topics::TopicsArgs),
    /// Write records to a topic of a running node.
    Produce(produce::ProduceArgs),
    /// Read records of a topic of a running node.
    Consume(consume::ConsumeArgs),
    /// Who may sign in; only while the node is stopped.
    Users(users::UsersArgs),
    /// Check and show the configuration.
    Config(config::ConfigArgs),
    /// Look through the data of a stopped node: every checksum, and whether all parts agree.
    Doctor(doctor::DoctorArgs),
    /// Print version, commit and target.
    Version,
    /// Print the completions of a shell.
    #[command(hide = true)]
    Completions { shell: clap_complete::Shell },
    /// Print the manual page up to the options; packaging adds what is no matter of options.
    #[command(hide = true)]
    Man,
}

/// `0.1.0 (0123456789ab, x86_64-unknown-linux-gnu)`
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("HOLDFAST_COMMIT"),
    ", ",
    env!("HOLDFAST_TARGET"),
    ")"
);

/// Where the settings of a node come from.
#[derive(Debug, Args)]
struct NodeArgs {
    /// Configuration file [default: /etc/holdfast/holdfast.toml if it exists]
    #[arg(long, value_name = "FILE", env = "HOLDFAST_CONFIG")]
    config: Option<PathBuf>,
    /// Directory of everything the node keeps.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Addresses of the doors; port 0 takes a free one, printed at start.
#[derive(Debug, Args)]
struct DoorArgs {
    /// Address of the MQTT door.
    #[arg(long, value_name = "ADDR")]
    mqtt: Option<SocketAddr>,
    /// Address of the Kafka door.
    #[arg(long, value_name = "ADDR")]
    kafka: Option<SocketAddr>,
    /// Address of the HTTP door and the dashboard.
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
}

impl DoorArgs {
    fn flags(&self) -> Vec<Flag> {
        let doors = [
            ("--mqtt", "mqtt.listen", self.mqtt),
            ("--kafka", "kafka.listen", self.kafka),
            ("--http", "http.listen", self.http),
        ];
        let given = |(option, key, address): (_, _, Option<SocketAddr>)| {
            address.map(|address| Flag {
                option,
                key,
                value: address.to_string(),
            })
        };
        doors.into_iter().filter_map(given).collect()
    }
}

impl NodeArgs {
    /// Settings of a node that belongs to the system: its file counts where no other is named.
    fn load(&self, doors: Option<&DoorArgs>) -> Result<Loaded, CliError> {
        self.load_from(file_or_system(self.config.as_deref()), doors)
    }

    fn load_from(
        &self,
        file: Option<PathBuf>,
        doors: Option<&DoorArgs>,
    ) -> Result<Loaded, CliError> {
        let mut flags = doors.map(DoorArgs::flags).unwrap_or_default();
        if let Some(dir) = &self.data_dir {
            let value = dir
                .to_str()
                .ok_or_else(|| CliError::failed("--data-dir is not valid UTF-8"))?;
            flags.push(Flag {
                option: "--data-dir",
                key: "node.data_dir",
                value: value.to_owned(),
            });
        }
        Ok(Config::load(&Sources {
            file,
            env: std::env::vars_os().collect(),
            flags,
        })?)
    }
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
        Command::Topics(arguments) => topics::run(&arguments),
        Command::Produce(arguments) => produce::run(&arguments),
        Command::Consume(arguments) => consume::run(&arguments),
        Command::Users(arguments) => users::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Version => output::line(format_args!("holdfast {VERSION}")),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "holdfast", &mut script);
            output::bytes(&script)
        }
        Command::Man => output::bytes(&manual()?),
    }
}

/// One page for the binary and all its commands.
fn manual() -> Result<Vec<u8>, CliError> {
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    let whole = clap_mangen::Man::new(command.clone());
    whole.render_title(&mut page)?;
    whole.render_name_section(&mut page)?;
    whole.render_synopsis_section(&mut page)?;
    whole.render_description_section(&mut page)?;
    for sub in command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
    {
        manual_of(sub, "holdfast", &mut page)?;
    }
    Ok(page)
}

fn manual_of(command: &clap::Command, parent: &str, page: &mut Vec<u8>) -> Result<(), CliError> {
    let name = format!("{parent} {}", command.get_name());
    let man = clap_mangen::Man::new(command.clone());
    let mut body = Vec::new();
    man.render_description_section(&mut body)?;
    if command
        .get_arguments()
        .any(|argument| !argument.is_hide_set())
    {
        man.render_options_section(&mut body)?;
    }
    // Each command is one section of the page: its own sections become sub-sections.
    let body = String::from_utf8_lossy(&body).replace(".SH ", ".SS ");
    let body = body.lines().filter(|line| {
        *line != ".SS DESCRIPTION" && !line.starts_with(".ie ") && !line.starts_with(".el ")
    });
    page.extend_from_slice(format!(".SH \"{}\"\n", name.to_uppercase()).as_bytes());
    for line in body {
        page.extend_from_slice(line.as_bytes());
        page.push(b'\n');
    }
    let inner = command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
    inner
        .into_iter()
        .try_for_each(|sub| manual_of(sub, &name, page))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn doors_become_flags_of_their_sections() {
        let cli = Cli::try_parse_from(["holdfast", "serve", "--kafka", "127.0.0.1:0"]).unwrap();
        let Command::Serve(arguments) = cli.command else {
            unreachable!()
        };
        let flags = arguments.doors.flags();
        assert_eq!(flags.len(), 1);
        assert_eq!(
            flags.first().map(|flag| (flag.key, flag.value.as_str())),
            Some(("kafka.listen", "127.0.0.1:0"))
        );
    }

    #[test]
    fn the_manual_names_every_visible_command() {
        let page = String::from_utf8(manual().unwrap()).unwrap();
        let names = [
            "SERVE",
            "DEMO",
            "SIMULATE",
            "TOPICS LIST",
            "PRODUCE",
            "CONSUME",
            "USERS CREATE",
            "CONFIG CHECK",
        ];
        for name in names {
            assert!(page.contains(&format!(".SH \"HOLDFAST {name}\"")), "{name}");
        }
        assert!(!page.contains("completions"), "hidden commands stay hidden");
    }
}
