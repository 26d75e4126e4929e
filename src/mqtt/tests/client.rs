//! A client that sends exactly the bytes a test wants, over a real socket.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than anything here takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn text(text: &str) -> Vec<u8> {
    binary(text.as_bytes())
}

pub(super) fn binary(bytes: &[u8]) -> Vec<u8> {
    [
        &u16::try_from(bytes.len()).unwrap().to_be_bytes()[..],
        bytes,
    ]
    .concat()
}

pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut left = body.len();
    while left >= 0x80 {
        packet.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    packet.push(left as u8);
    packet.extend_from_slice(body);
    packet
}

/// Properties with their length; fewer than 128 bytes.
pub(super) fn properties(fields: &[u8]) -> Vec<u8> {
    [&[u8::try_from(fields.len()).unwrap()][..], fields].concat()
}

/// What goes into a CONNECT.
#[derive(Clone)]
pub(super) struct Hello {
    pub(super) v5: bool,
    pub(super) clean: bool,
    pub(super) client: String,
    pub(super) keep_alive_s: u16,
    pub(super) login: Option<(String, String)>,
    /// Topic, payload, flags (QoS << 3 | retain << 5).
    pub(super) will: Option<(String, String, u8)>,
    pub(super) properties: Vec<u8>,
}

impl Hello {
    pub(super) fn v3(client: &str) -> Hello {
        Hello {
            v5: false,
            clean: true,
            client: client.to_owned(),
            keep_alive_s: 0,
            login: None,
            will: None,
            properties: Vec::new(),
        }
    }

    pub(super) fn v5(client: &str) -> Hello {
        Hello {
            v5: true,
            ..Hello::v3(client)
        }
    }

    pub(super) fn packet(&self) -> Vec<u8> {
        let mut flags = if self.clean { 2 } else { 0 };
        let mut payload = text(&self.client);
        if let Some((topic, message, will_flags)) = &self.will {
            flags |= 4 | will_flags;
            if self.v5 {
                payload.push(0);
            }
            payload.extend(text(topic));
            payload.extend(text(message));
        }
        if let Some((user, secret)) = &self.login {
            flags |= 0xc0;
            payload.extend(text(user));
            payload.extend(text(secret));
        }
        let mut body = text("MQTT");
        body.extend([if self.v5 { 5 } else { 4 }, flags]);
        body.extend(self.keep_alive_s.to_be_bytes());
        if self.v5 {
            body.extend(properties(&self.properties));
        }
        body.extend(payload);
        packet(0x10, &body)
    }
}

/// A publish of a test.
#[derive(Clone)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    /// 0: QoS 0.
    pub(super) id: u16,
    pub(super) retain: bool,
    /// `None`: 3.1.1.
    pub(super) properties: Option<Vec<u8>>,
}

impl Message {
    pub(super) fn v3(topic: &str, payload: &str, id: u16) -> Message {
        Message {
            topic: topic.to_owned(),
            payload: payload.as_bytes().to_vec(),
            id,
            retain: false,
            properties: None,
        }
    }

    pub(super) fn v5(topic: &str, payload: &str, id: u16, fields: &[u8]) -> Message {
        Message {
            properties: Some(fields.to_vec()),
            ..Message::v3(topic, payload, id)
        }
    }

    pub(super) fn packet(&self) -> Vec<u8> {
        let mut body = text(&self.topic);
        if self.id > 0 {
            body.extend(self.id.to_be_bytes());
        }
        if let Some(fields) = &self.properties {
            body.extend(properties(fields));
        }
        body.extend(&self.payload);
        packet(
            0x30 | u8::from(self.id > 0) << 1 | u8::from(self.retain),
            &body,
        )
    }
}

/// A publish as a subscriber gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) topic: String,
    pub(super) payload: String,
    pub(super) id: u16,
    pub(super) retain: bool,
    pub(super) properties: Vec<u8>,
}

pub(super) struct Client {
    stream: TcpStream,
    buffer: BytesMut,
    v5: bool,
}

impl Client {
    pub(super) async fn raw(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client {
            stream,
            buffer: BytesMut::new(),
            v5: false,
        }
    }

    /// Connects and returns the CONNACK's body.
    pub(super) async fn hello(address: SocketAddr, hello: &Hello) -> (Client, Bytes) {
        let mut client = Client::raw(address).await;
        client.v5 = hello.v5;
        client.send(&hello.packet()).await;
        let (first, body) = client.packet().await.expect("a CONNACK");
        assert_eq!(first, 0x20);
        (client, body)
    }

    /// Connects and is let in.
    pub(super) async fn connect(address: SocketAddr, hello: Hello) -> Client {
        let (client, connack) = Client::hello(address, &hello).await;
        assert_eq!(connack[..2], [0, 0], "CONNACK {connack:02x?}");
        client
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes))
            .await
            .unwrap()
            .unwrap();
    }

    /// As far as the other side still takes it.
    pub(super) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        timeout(PATIENCE, self.stream.write_all(bytes))
            .await
            .unwrap()
            .is_ok()
    }

    /// The next packet; `None` when the connection is closed.
    pub(super) async fn packet(&mut self) -> Option<(u8, Bytes)> {
        loop {
            if let Some(packet) = self.whole_packet() {
                return Some(packet);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
            match read.expect("an answer in time") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    fn whole_packet(&mut self) -> Option<(u8, Bytes)> {
        let (mut len, mut at) = (0, 1);
        loop {
            let byte = *self.buffer.get(at)?;
            len |= usize::from(byte & 0x7f) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if self.buffer.len() < at + len {
            return None;
        }
        let mut packet = self.buffer.split_to(at + len).freeze();
        let first = packet[0];
        packet.advance(at);
        Some((first, packet))
    }

    pub(super) async fn expect(&mut self, first: u8) -> Bytes {
        let (found, body) = self.packet().await.expect("an open connection");
        assert_eq!(found, first, "body {body:02x?}");
        body
    }

    pub(super) async fn publish(&mut self, message: Message) {
        self.send(&message.packet()).await;
        if message.id > 0 {
            assert_eq!(self.expect(0x40).await[..], message.id.to_be_bytes());
        }
    }

    /// Returns the reason codes.
    pub(super) async fn subscribe_with(
        &mut self,
        fields: &[u8],
        filters: &[(&str, u8)],
    ) -> Vec<u8> {
        let mut body = vec![0, 9];
        if self.v5 {
            body.extend(properties(fields));
        }
        for (filter, options) in filters {
            body.extend(text(filter));
            body.push(*options);
        }
        self.send(&packet(0x82, &body)).await;
        let mut suback = self.expect(0x90).await;
        assert_eq!(suback.get_u16(), 9);
        if self.v5 {
            assert_eq!(suback.get_u8(), 0);
        }
        suback.to_vec()
    }

    pub(super) async fn subscribe(&mut self, filter: &str, qos: u8) {
        assert_eq!(
            self.subscribe_with(&[], &[(filter, qos)]).await,
            [qos.min(1)]
        );
    }

    pub(super) async fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let mut body = vec![0, 8];
        if self.v5 {
            body.push(0);
        }
        for filter in filters {
            body.extend(text(filter));
        }
        self.send(&packet(0xa2, &body)).await;
        let mut unsuback = self.expect(0xb0).await;
        assert_eq!(unsuback.get_u16(), 8);
        unsuback.to_vec()
    }

    /// The next publish; acknowledges it if it wants that.
    pub(super) async fn receive(&mut self) -> Got {
        let got = self.receive_quietly().await;
        if got.id > 0 {
            let id = got.id.to_be_bytes();
            self.send(&[0x40, 2, id[0], id[1]]).await;
        }
        got
    }

    pub(super) async fn receive_quietly(&mut self) -> Got {
        let (first, mut body) = self.packet().await.expect("a publish");
        assert_eq!(first >> 4, 3, "a publish, not {first:02x} {body:02x?}");
        let topic_len = usize::from(body.get_u16());
        let topic = String::from_utf8(body.split_to(topic_len).to_vec()).unwrap();
        let id = if first & 6 == 0 { 0 } else { body.get_u16() };
        let mut properties = Vec::new();
        if self.v5 {
            let len = usize::from(body.get_u8());
            properties = body.split_to(len).to_vec();
        }
        let payload = String::from_utf8(body.to_vec()).unwrap();
        Got {
            topic,
            payload,
            id,
            retain: first & 1 != 0,
            properties,
        }
    }

    pub(super) async fn ping(&mut self) {
        self.send(&[0xc0, 0]).await;
        self.expect(0xd0).await;
    }

    /// Waits for the end; returns the reason code of the DISCONNECT, if one came.
    pub(super) async fn closed(&mut self) -> Option<u8> {
        let mut reason = None;
        while let Some((first, body)) = self.packet().await {
            if first == 0xe0 {
                reason = body.first().copied();
            }
        }
        reason
    }
}
