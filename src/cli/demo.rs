//! `holdfast demo`: the node, simulated devices and what to try first, in one foreground process.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::error::CliError;
use super::lifecycle::{self, Signals};
use super::notify::Supervisor;
use super::{DoorArgs, NodeArgs, VERSION, logging, output};
use crate::config::Config;
use crate::node::Node;
use crate::simulate::{DEVICES_MAX, Plan, Progress, SimulateConfig};

/// Where the demo keeps its data unless told otherwise.
const DATA_DIR: &str = "holdfast-data";
/// Who the person in front of the demo signs in as.
const USER: &str = "demo";
/// The user of the simulated devices, where the MQTT door asks for one.
const DEVICES_USER: &str = "demo-devices";

#[derive(Debug, Args)]
#[command(mut_arg("config", |arg| arg.help("Configuration file [default: none]")))]
#[command(mut_arg("data_dir", |arg| arg.help("Directory of everything the node keeps [default: ./holdfast-data]")))]
pub(super) struct DemoArgs {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    doors: DoorArgs,
    /// Keep the data in a temporary directory that is removed at the end.
    #[arg(long, conflicts_with = "data_dir")]
    ephemeral: bool,
    /// Give the user "demo" a new secret and print it.
    #[arg(long)]
    new_credentials: bool,
    /// Run without simulated devices.
    #[arg(long)]
    no_devices: bool,
}

pub(super) fn run(arguments: &DemoArgs) -> Result<(), CliError> {
    // The system's file belongs to the system's node: a demo reads a file only if it is named.
    let loaded = arguments
        .node
        .load_from(arguments.node.config.clone(), Some(&arguments.doors))?;
    let named = loaded.is_set("node.data_dir");
    let mut config = loaded.config;
    logging::init(&config.logging);
    let temporary = if arguments.ephemeral {
        Some(TemporaryDir::make()?)
    } else {
        None
    };
    match &temporary {
        Some(dir) => config.node.data_dir.clone_from(&dir.0),
        None if !named => config.node.data_dir = PathBuf::from(DATA_DIR),
        None => {}
    }
    tracing::info!(
        "holdfast {VERSION} demo, data in {}",
        config.node.data_dir.display()
    );
    let runtime = lifecycle::runtime(&config.node)?;
    lifecycle::block_on(runtime, demo(config, arguments))
}

async fn demo(config: Config, arguments: &DemoArgs) -> Result<(), CliError> {
    let mut signals = Signals::install()?;
    let supervisor = Supervisor::from_env();
    let simulate = config.simulate.clone();
    let anonymous = config.mqtt.anonymous_allowed(config.mqtt.listen);
    let Some(node) = lifecycle::start(config, &mut signals, &supervisor).await? else {
        return Ok(());
    };
    let devices = match welcome(&node, arguments, anonymous, &supervisor).await {
        Ok(credentials) if !arguments.no_devices => Some(Fleet::start(plan(
            &simulate,
            node.addresses().mqtt,
            credentials,
        ))),
        Ok(_) => None,
        Err(error) => {
            node.stop().await;
            return Err(error);
        }
    };
    let name = signals.next().await;
    tracing::info!("{name}: stopping");
    let stopping = async {
        if let Some(devices) = devices {
            devices.stop().await;
        }
        node.stop().await;
    };
    lifecycle::stop(stopping, &mut signals, &supervisor).await;
    Ok(())
}

/// Says where everything is; answers with the devices' credentials if they need any.
async fn welcome(
    node: &Node,
    arguments: &DemoArgs,
    anonymous: bool,
    supervisor: &Supervisor,
) -> Result<Option<(String, String)>, CliError> {
    let auth = node.auth();
    let fresh = arguments.new_credentials || auth.user(USER).is_none();
    let secret = match fresh {
        true => Some(auth.renew_token(USER).await.map_err(CliError::failed)?),
        false => None,
    };
    let devices = match anonymous {
        true => None,
        // Only its hash is kept, so that it is renewed at every start.
        false => {
            let secret = auth
                .renew_token(DEVICES_USER)
                .await
                .map_err(CliError::failed)?;
            Some((DEVICES_USER.to_owned(), secret))
        }
    };
    let addresses = node.addresses();
    let text = greeting(
        addresses.mqtt,
        addresses.kafka,
        addresses.http,
        secret.as_deref(),
    );
    output::line(format_args!("{text}"))?;
    lifecycle::announce(node, supervisor)?;
    Ok(devices)
}

fn greeting(mqtt: SocketAddr, kafka: SocketAddr, http: SocketAddr, secret: Option<&str>) -> String {
    let (mqtt, kafka, http) = (reachable(mqtt), reachable(kafka), reachable(http));
    let sign_in = match secret {
        Some(secret) => format!(
            "credentials of the HTTP door and the dashboard, shown only now:\n  \
             client_id {USER}\n  client_secret {secret}\n\
             dashboard:\n  http://{http}/#client_id={USER}&client_secret={secret}\n"
        ),
        None => format!(
            "dashboard:\n  http://{http}/\n\
             its credentials were shown at an earlier start; `holdfast demo --new-credentials` makes new ones\n"
        ),
    };
    let secret = secret.unwrap_or("SECRET");
    format!(
        "{sign_in}try:\n  \
         mosquitto_pub -h {} -p {} -q 1 -t speed/sensor-x -m '{{\"sensor_id\":\"sensor-x\",\"speed\":42,\"ts\":1700000000}}'\n  \
         kcat -b {kafka} -C -t telemetry.raw -o -5 -e\n  \
         curl -s http://{http}/auth -H 'content-type: application/json' -d '{{\"client_id\":\"{USER}\",\"client_secret\":\"{secret}\"}}'\n\
         stop with Ctrl-C\n",
        mqtt.ip(),
        mqtt.port(),
    )
}

/// The address as a client on this machine types it: 0.0.0.0 is nowhere to connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], address.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, address.port()))
        }
        _ => address,
    }
}

fn plan(config: &SimulateConfig, mqtt: SocketAddr, credentials: Option<(String, String)>) -> Plan {
    let mqtt = reachable(mqtt);
    Plan {
        host: mqtt.ip().to_string(),
        port: mqtt.port(),
        credentials,
        devices: config.devices.clamp(1, DEVICES_MAX),
        rate_per_s: config.rate_per_s,
        seed: config.seed,
        flaws: config.flaws(),
    }
}

/// The simulated devices beside the node.
struct Fleet {
    stop: CancellationToken,
    running: JoinHandle<Progress>,
}

impl Fleet {
    fn start(plan: Plan) -> Fleet {
        let stop = CancellationToken::new();
        let running =
            tokio::spawn(crate::simulate::run(
                plan,
                stop.clone(),
                |progress| match progress.last_error {
                    Some(_) => tracing::warn!("simulated devices: {progress}"),
                    None => tracing::debug!("simulated devices: {progress}"),
                },
            ));
        Fleet { stop, running }
    }

    async fn stop(self) {
        self.stop.cancel();
        match self.running.await {
            Ok(progress) => tracing::info!("simulated devices: {progress}"),
            Err(error) => tracing::error!(%error, "simulated devices"),
        }
    }
}

/// Removed with everything in it when dropped.
struct TemporaryDir(PathBuf);

impl TemporaryDir {
    fn make() -> io::Result<TemporaryDir> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let path =
            std::env::temp_dir().join(format!("holdfast-demo-{:016x}", u64::from_le_bytes(random)));
        // Fails if it exists; the token key in it is nobody else's business.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(TemporaryDir(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(self.path()) {
            tracing::warn!(%error, "{} stays behind", self.path().display());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn greeting_of(secret: Option<&str>) -> String {
        let address = |text: &str| text.parse().unwrap();
        greeting(
            address("127.0.0.1:1883"),
            address("127.0.0.1:9092"),
            address("0.0.0.0:8080"),
            secret,
        )
    }

    #[test]
    fn new_credentials_are_shown_with_a_link_that_can_be_followed() {
        let text = greeting_of(Some("s3cret"));
        assert!(
            text.contains("\n  client_id demo\n  client_secret s3cret\n"),
            "{text}"
        );
        assert!(
            text.contains("http://127.0.0.1:8080/#client_id=demo&client_secret=s3cret\n"),
            "{text}"
        );
    }

    #[test]
    fn a_later_start_says_how_to_make_new_ones() {
        let text = greeting_of(None);
        assert!(
            text.contains("--new-credentials") && !text.contains("client_secret="),
            "{text}"
        );
    }

    #[test]
    fn a_temporary_directory_is_private_and_goes() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = TemporaryDir::make().unwrap();
        let path = dir.path().to_owned();
        fs::write(path.join("x"), "x").unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        drop(dir);
        assert!(!path.exists());
    }
}
