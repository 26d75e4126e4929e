//! Word to the supervisor: sd_notify(3), the protocol of `Type=notify` units.
//!
//! Knows the datagram and the two kinds of socket names. Outside systemd it does nothing. A
//! supervisor that cannot be told is logged and never a reason to fail.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The supervisor's socket, if there is one.
#[derive(Debug, Clone, Default)]
pub(super) struct Supervisor {
    socket: Option<std::ffi::OsString>,
}

impl Supervisor {
    /// As `NOTIFY_SOCKET` names it.
    pub(super) fn from_env() -> Supervisor {
        Supervisor {
            socket: std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()),
        }
    }

    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Asks for more time than the unit's limit: recovery takes as long as the log is long.
    pub(super) fn extend(&self, by: Duration) {
        self.tell(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()));
    }

    fn tell(&self, state: &str) {
        let Some(name) = &self.socket else { return };
        if let Err(error) = send(name, state) {
            tracing::warn!(%error, socket = %name.to_string_lossy(), "the supervisor cannot be told {state}");
        }
    }
}

fn send(name: &OsStr, state: &str) -> io::Result<()> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(state.as_bytes(), &address)
        .map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(buffer.get(..length).unwrap()).into_owned()
    }

    #[test]
    fn a_socket_in_the_file_system_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Supervisor {
            socket: Some(path.into()),
        }
        .ready();
        assert_eq!(heard(&socket), "READY=1");
    }

    #[test]
    fn an_abstract_socket_is_told() {
        let name = format!("holdfast-notify-test-{}", std::process::id());
        let socket =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Supervisor {
            socket: Some(format!("@{name}").into()),
        }
        .stopping();
        assert_eq!(heard(&socket), "STOPPING=1");
    }

    #[test]
    fn without_a_supervisor_nothing_happens() {
        Supervisor::default().ready();
        Supervisor {
            socket: Some("/nonexistent/socket".into()),
        }
        .ready();
    }
}
