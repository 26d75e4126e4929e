//! `holdfast simulate`: the device fleet against any MQTT broker.

use std::time::Duration;

use clap::Args;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::error::CliError;
use super::lifecycle::{self, Signals, block_on};
use super::{logging, output};
use crate::config::{Config, LoggingConfig, NodeConfig};
use crate::simulate::{DEVICES_MAX, Plan, SimulateConfig};

const CONNECT_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// The MQTT broker.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883")]
    mqtt: String,
    /// Devices, each with a connection of its own [default: 30]
    #[arg(long, value_name = "N")]
    devices: Option<usize>,
    /// Messages a second, over all devices [default: 20]
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// The same seed makes the same fleet [default: 1]
    #[arg(long)]
    seed: Option<u64>,
    /// Stop after this many seconds [default: at a signal]
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,
    #[arg(long, requires = "password")]
    username: Option<String>,
    /// Better given in the environment, where other users cannot read it.
    #[arg(
        long,
        requires = "username",
        env = "MQTT_PASSWORD",
        hide_env_values = true
    )]
    password: Option<String>,
}

impl SimulateArgs {
    fn plan(&self, config: &SimulateConfig) -> Result<Plan, CliError> {
        let port = |port: &str| port.parse::<u16>().ok().filter(|port| *port != 0);
        let (host, port) = self
            .mqtt
            .rsplit_once(':')
            .and_then(|(host, text)| Some((host.trim_matches(['[', ']']), port(text)?)))
            .filter(|(host, _)| !host.is_empty())
            .ok_or_else(|| {
                CliError::failed(format!("--mqtt {:?}: expected HOST:PORT", self.mqtt))
            })?;
        let devices = self.devices.unwrap_or(config.devices);
        if !(1..=DEVICES_MAX).contains(&devices) {
            return Err(CliError::failed(format!(
                "{devices} devices: 1 to {DEVICES_MAX} are possible"
            )));
        }
        let rate_per_s = self.rate.unwrap_or(config.rate_per_s);
        if !(rate_per_s.is_finite() && rate_per_s > 0.0) {
            return Err(CliError::failed(format!(
                "a rate of {rate_per_s} messages a second is not possible"
            )));
        }
        Ok(Plan {
            host: host.to_owned(),
            port,
            credentials: self.username.clone().zip(self.password.clone()),
            devices,
            rate_per_s,
            seed: self.seed.unwrap_or(config.seed),
            flaws: config.flaws(),
        })
    }
}

pub(super) fn run(arguments: &SimulateArgs) -> Result<(), CliError> {
    logging::init(&LoggingConfig::default());
    let plan = arguments.plan(&Config::default().simulate)?;
    let duration = match arguments.duration.map(Duration::try_from_secs_f64) {
        Some(Err(_)) => {
            return Err(CliError::failed(
                "--duration: expected a positive number of seconds",
            ));
        }
        Some(Ok(duration)) => duration,
        None => Duration::MAX,
    };
    block_on(
        lifecycle::runtime(&NodeConfig::default())?,
        simulate(plan, duration),
    )
}

async fn simulate(plan: Plan, duration: Duration) -> Result<(), CliError> {
    let mut signals = Signals::install()?;
    reachable(&plan).await?;
    let stop = CancellationToken::new();
    // A reader of the progress that has gone ends the simulation.
    let unread = stop.clone();
    let running = crate::simulate::run(plan, stop.clone(), |progress| {
        if output::line(format_args!("{progress}")).is_err() {
            unread.cancel();
        }
    });
    tokio::pin!(running);
    let done = tokio::select! {
        done = &mut running => done,
        () = sleep(duration) => { stop.cancel(); running.await }
        _ = signals.next() => { stop.cancel(); running.await }
    };
    output::line(format_args!("{done}"))?;
    match done.sent - done.acked.min(done.sent) {
        0 => Ok(()),
        missing => Err(CliError::failed(format!(
            "{missing} messages were not acknowledged"
        ))),
    }
}

async fn sleep(duration: Duration) {
    match duration {
        Duration::MAX => std::future::pending().await,
        duration => tokio::time::sleep(duration).await,
    }
}

/// Says at once that nobody listens; later the devices keep trying.
async fn reachable(plan: &Plan) -> Result<(), CliError> {
    let address = format!("{}:{}", plan.host, plan.port);
    let failed =
        |reason: String| CliError::failed(format!("{reason}: is a broker listening on {address}?"));
    match tokio::time::timeout(
        CONNECT_MAX,
        TcpStream::connect((plan.host.as_str(), plan.port)),
    )
    .await
    {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(failed(super::remote::reason(&error))),
        Err(_) => Err(failed("no answer".to_owned())),
    }
}
