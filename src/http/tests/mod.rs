//! The door over real sockets and a real log. This module is the harness: a door with one client, a plain
//! HTTP client that shows exactly what was answered, and a WebSocket client.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod access;
mod answers;
mod limits;
mod live;
mod mutation;
mod rights;
mod speed;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use holdfast_storage::log::{LogOptions, NewTopic, Record};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::*;
use crate::auth::AuthConfig;
use crate::live::{InvalidItem, LiveConfig, Sources, TelemetrySource};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A telemetry store of which the tests are the writer.
#[derive(Default)]
pub(super) struct Store {
    pub(super) summary: Mutex<String>,
    /// Oldest first.
    pub(super) invalid: Mutex<Vec<i64>>,
}

impl TelemetrySource for Store {
    fn summary(&self) -> Result<String, String> {
        Ok(self.summary.lock().unwrap().clone())
    }

    fn invalid_recent(&self, limit: usize) -> Result<Vec<InvalidItem>, String> {
        let ids = self.invalid.lock().unwrap();
        let item = |id: &i64| InvalidItem {
            id: *id,
            json: json!({ "id": id }).to_string(),
        };
        Ok(ids.iter().rev().take(limit).map(item).collect())
    }
}

pub(super) struct Setup {
    pub(super) http: HttpConfig,
    pub(super) live: LiveConfig,
    pub(super) auth: AuthConfig,
    pub(super) speed_allow_anonymous: bool,
    pub(super) mounts: Mounts,
}

impl Default for Setup {
    fn default() -> Setup {
        let http = HttpConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..HttpConfig::default()
        };
        Setup {
            http,
            live: LiveConfig::default(),
            auth: AuthConfig::default(),
            speed_allow_anonymous: false,
            mounts: Mounts::default(),
        }
    }
}

/// A door with one client, `tester`.
pub(super) struct Door {
    pub(super) log: Log,
    pub(super) auth: Auth,
    pub(super) live: Live,
    pub(super) store: Arc<Store>,
    pub(super) secret: String,
    pub(super) token: String,
    pub(super) handle: HttpHandle,
    pub(super) cancel: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Door {
    pub(super) async fn open(setup: Setup) -> Door {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(LogOptions::new(dir.path())).unwrap();
        let auth = Auth::open_with(log.clone(), setup.auth).await.unwrap();
        let secret = auth.renew_token("tester").await.unwrap();
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let principal = auth.login("tester", &secret, local).await.unwrap();
        let token = auth.issue_token(&principal).unwrap().jwt;
        let cancel = CancellationToken::new();
        let store = Arc::new(Store::default());
        *store.summary.lock().unwrap() = r#"{"topics":[]}"#.to_owned();
        let telemetry = Arc::clone(&store) as Arc<dyn TelemetrySource>;
        let sources = Sources {
            telemetry: Some(telemetry),
            ..Sources::default()
        };
        let live = Live::start(setup.live, log.clone(), sources, cancel.clone());
        let speed = SpeedConfig {
            allow_anonymous: setup.speed_allow_anonymous,
        };
        let parts = (log.clone(), auth.clone(), live.clone());
        let handle = start(
            setup.http,
            speed,
            parts.0,
            parts.1,
            parts.2,
            setup.mounts,
            cancel.clone(),
        )
        .await
        .unwrap();
        Door {
            log,
            auth,
            live,
            store,
            secret,
            token,
            handle,
            cancel,
            _dir: dir,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        let port = self.handle.local_addr().unwrap().port();
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        exchange(self.address(), &request("GET", path, &[], "")).await
    }

    pub(super) async fn get_with(&self, path: &str, token: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        exchange(
            self.address(),
            &request("GET", path, &[("Authorization", &bearer)], ""),
        )
        .await
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> Answer {
        exchange(
            self.address(),
            &request("POST", path, &[("Content-Type", "application/json")], body),
        )
        .await
    }

    pub(super) async fn sign_in(&self, id: &str, secret: &str) -> Answer {
        self.post(
            "/auth",
            &json!({ "client_id": id, "client_secret": secret }).to_string(),
        )
        .await
    }

    pub(super) async fn topic(&self, name: &str) -> Arc<holdfast_storage::log::Topic> {
        let new = NewTopic {
            name: name.to_owned(),
            partitions: 1,
            configs: Vec::new(),
        };
        self.log.create_topic(new).await.unwrap()
    }

    /// Appends values to partition 0 and waits until they are readable.
    pub(super) async fn append(
        &self,
        topic: &str,
        key: &str,
        values: impl IntoIterator<Item = String>,
    ) {
        let topic = self.log.topic(topic).unwrap();
        let record = |value: String| Record {
            timestamp_ms: 1_700_000_000_000,
            key: Some(key.to_owned().into()),
            value: Some(value.into()),
            headers: Vec::new(),
        };
        let records: Vec<Record> = values.into_iter().map(record).collect();
        for some in records.chunks(1000) {
            self.log
                .append(topic.partition(0).unwrap(), some)
                .await
                .unwrap()
                .await
                .unwrap();
        }
    }

    /// A dashboard that was welcomed.
    pub(super) async fn dashboard(&self) -> Ws {
        let mut ws = self.connect("/ws/live", &[]).await.unwrap();
        ws.say(json!({ "type": "hello", "token": self.token }))
            .await;
        assert_eq!(ws.json().await, json!({ "type": "welcome" }));
        ws
    }

    pub(super) async fn connect(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Ws, u16> {
        let mut request = format!("ws://{}{path}", self.address())
            .into_client_request()
            .unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match timeout(PATIENCE, tokio_tungstenite::connect_async(request))
            .await
            .unwrap()
        {
            Ok((socket, _)) => Ok(Ws { socket }),
            Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => {
                Err(answer.status().as_u16())
            }
            Err(other) => panic!("{other}"),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// A WebSocket client.
pub(super) struct Ws {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Ws {
    pub(super) async fn say(&mut self, message: Value) {
        self.say_text(&message.to_string()).await;
    }

    pub(super) async fn say_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next text, or the close code.
    pub(super) async fn text(&mut self) -> Result<String, u16> {
        loop {
            match timeout(PATIENCE, self.socket.next())
                .await
                .expect("nothing came")
            {
                Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                Some(Ok(Message::Close(frame))) => {
                    return Err(frame.map_or(1005, |f| f.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }

    pub(super) async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await.expect("the socket was closed")).unwrap()
    }

    /// The data of the next update of a room; frames of other rooms are passed over.
    pub(super) async fn update(&mut self, room: &str) -> Value {
        loop {
            let mut frame = self.json().await;
            assert_ne!(frame["type"], "error", "{frame}");
            if frame["type"] == "update" && frame["room"] == room {
                return frame["data"].take();
            }
        }
    }

    pub(super) async fn closed_with(&mut self) -> u16 {
        let closing = async {
            loop {
                if let Err(code) = self.text().await {
                    return code;
                }
            }
        };
        // Pings count as something that came.
        timeout(PATIENCE, closing).await.expect("it was not closed")
    }
}

/// What the door answered, word for word.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn parse(bytes: &[u8]) -> Option<Answer> {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        })
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        lines
            .into_iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    pub(super) fn json(&self) -> Value {
        assert!(
            self.header("content-type")
                .unwrap()
                .starts_with("application/json"),
            "{self:?}"
        );
        serde_json::from_str(&self.body).unwrap()
    }

    /// The sentence of an error answer.
    pub(super) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

pub(super) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    (text + "\r\n" + body).into_bytes()
}

/// Sends bytes and reads until the door closes.
pub(super) async fn exchange(address: SocketAddr, bytes: &[u8]) -> Answer {
    let answer = exchange_raw(address, bytes).await;
    Answer::parse(&answer).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

pub(super) async fn exchange_raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("the door neither answered nor closed");
    answer
}
