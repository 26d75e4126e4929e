//! Ten thousand damaged requests: each harms at most its own connection.

use super::*;

const REQUESTS: u64 = 10_000;

/// SplitMix64: small, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

fn damaged(random: &mut Random, originals: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = originals[random.below(originals.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => drop(bytes.drain(at..(at + random.below(20)).min(bytes.len()))),
            3 => bytes.truncate(at.max(1)),
            4 => {
                let piece = bytes[at..(at + random.below(200)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => drop(
                bytes.splice(
                    at..at,
                    [b"\r\n", b"\0\0", b"\xff\xff", b"::", b"%%"][random.below(5)]
                        .iter()
                        .copied(),
                ),
            ),
        }
        if bytes.is_empty() {
            bytes.push(b'G');
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_requests_leave_the_door_answering() {
    let door = Door::open(Setup::default()).await;
    let json_type = ("Content-Type", "application/json");
    let bearer = format!("Bearer {}", door.token);
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let chunked = "POST /auth HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n";
    let originals = vec![
        request("GET", "/health", &[], ""),
        request("GET", "/api/v1/topics", &[("Authorization", &bearer)], ""),
        request(
            "POST",
            "/auth",
            &[json_type],
            r#"{"client_id":"tester","client_secret":"x"}"#,
        ),
        request(
            "GET",
            "/assets/%2e%2e/index.html?x=%00&y",
            &[("If-None-Match", "\"a\"")],
            "",
        ),
        request("GET", "/ws/speed?sensor_id=a", &upgrade, ""),
        request("GET", "/ws/live", &upgrade, ""),
        chunked.as_bytes().to_vec(),
    ];
    let seed: u64 = std::env::var("HOLDFAST_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    println!("seed: HOLDFAST_SEED={seed}");
    let mut random = Random(seed);
    let (mut answered, mut closed) = (0, 0);
    for _ in 0..REQUESTS {
        let bytes = damaged(&mut random, &originals);
        let mut stream = TcpStream::connect(door.address()).await.unwrap();
        let _ = stream.write_all(&bytes).await;
        // The door sees the end of what this client will ever say, so it need not time out.
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(
            read.is_ok(),
            "neither answered nor closed: {:?}",
            String::from_utf8_lossy(&bytes)
        );
        match Answer::parse(&answer) {
            Some(answer) => {
                assert!(
                    answer.status != 500,
                    "{:?} answered {answer:?}",
                    String::from_utf8_lossy(&bytes)
                );
                answered += 1;
            }
            None => closed += 1,
        }
    }
    println!("{answered} answered, {closed} closed");
    assert!(answered > REQUESTS / 10);
    let health = door.get("/health").await;
    assert_eq!(
        (health.status, &health.json()["http"]["panics_total"]),
        (200, &json!(0))
    );
    assert_eq!(
        door.get_with("/api/v1/topics", &door.token).await.status,
        200
    );
}

#[tokio::test]
async fn noise_on_a_websocket_leaves_the_door_answering() {
    let door = Door::open(Setup::default()).await;
    let hello = json!({ "type": "hello", "token": door.token }).to_string();
    let seed: u64 = std::env::var("HOLDFAST_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    println!("seed: HOLDFAST_SEED={seed}");
    let mut random = Random(seed);
    let upgrade = "GET /ws/live HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for _ in 0..500 {
        // A masked text frame with the hello (RFC 6455 section 5.2, mask 0), then a damaged copy, then noise.
        let mut frame = vec![0x81, 0x80 | 126];
        frame.extend((hello.len() as u16).to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(hello.as_bytes());
        let mut bytes = upgrade.as_bytes().to_vec();
        bytes.extend(&frame);
        bytes.extend(damaged(&mut random, std::slice::from_ref(&frame)));
        bytes.extend(
            (0..random.below(64))
                .map(|_| random.next() as u8)
                .collect::<Vec<_>>(),
        );
        let mut stream = TcpStream::connect(door.address()).await.unwrap();
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "neither answered nor closed");
        assert!(
            answer.starts_with(b"HTTP/1.1 101"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    door.dashboard().await;
    assert_eq!(door.get("/health").await.json()["http"]["panics_total"], 0);
}
