//! Limits, slow clients and the end.

use super::*;

async fn one_second() -> Door {
    let http = HttpConfig {
        head_timeout_s: 1,
        body_timeout_s: 1,
        ..Setup::default().http
    };
    Door::open(Setup {
        http,
        ..Setup::default()
    })
    .await
}

#[tokio::test]
async fn a_request_head_that_trickles_in_is_cut_off() {
    let door = one_second().await;
    let closed = exchange_raw(
        door.address(),
        b"GET /health HTTP/1.1\r\nHost: a\r\nX-Slow: ",
    )
    .await;
    assert!(
        Answer::parse(&closed).is_none_or(|answer| answer.status == 408),
        "{closed:?}"
    );
    let silent = exchange_raw(door.address(), b"").await;
    assert!(silent.is_empty());
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_answered_408() {
    let door = one_second().await;
    let head = b"POST /auth HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let answer = exchange(door.address(), head).await;
    assert_eq!(answer.status, 408);
    assert!(answer.error().contains("in time"));
}

#[tokio::test]
async fn a_chunked_body_is_limited_too() {
    let http = HttpConfig {
        request_body_bytes_max: 100,
        ..Setup::default().http
    };
    let door = Door::open(Setup {
        http,
        ..Setup::default()
    })
    .await;
    let head = "POST /auth HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("40\r\n{}\r\n", "x".repeat(64));
    let answer = exchange(
        door.address(),
        format!("{head}{chunk}{chunk}0\r\n\r\n").as_bytes(),
    )
    .await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn bodies_held_at_once_are_limited_and_given_back() {
    let (entered, mut waiting) = tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<()>>(8);
    let holds = post(move || async move {
        let (release, released) = tokio::sync::oneshot::channel();
        entered.send(release).await.unwrap();
        released.await.unwrap();
        "done"
    });
    let mounts = Mounts {
        open: Router::new().route("/holds", holds),
        ..Mounts::default()
    };
    let http = HttpConfig {
        request_bodies_bytes_max: 150,
        ..Setup::default().http
    };
    let door = Door::open(Setup {
        http,
        mounts,
        ..Setup::default()
    })
    .await;
    let address = door.address();
    let bytes = request("POST", "/holds", &[], &"x".repeat(100));
    let first = tokio::spawn({
        let bytes = bytes.clone();
        async move { exchange(address, &bytes).await }
    });
    let release = waiting.recv().await.unwrap();
    let refused = exchange(address, &bytes).await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1"))
    );
    release.send(()).unwrap();
    assert_eq!(first.await.unwrap().body, "done");
    let again = tokio::spawn(async move { exchange(address, &bytes).await });
    waiting.recv().await.unwrap().send(()).unwrap();
    assert_eq!(again.await.unwrap().status, 200);
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let http = HttpConfig {
        connections_max: 2,
        ..Setup::default().http
    };
    let door = Door::open(Setup {
        http,
        ..Setup::default()
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(door.address()).await.unwrap();
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        held.push(stream);
    }
    let refused = door.get("/health").await;
    assert_eq!(refused.status, 503);
    assert!(refused.error().contains("connections"));
    assert_eq!(refused.header("connection"), Some("close"));
}

#[tokio::test]
async fn a_head_beyond_its_limit_is_refused() {
    let http = HttpConfig {
        head_bytes_max: 8192,
        ..Setup::default().http
    };
    let door = Door::open(Setup {
        http,
        ..Setup::default()
    })
    .await;
    let long = "x".repeat(20_000);
    let answer = exchange(
        door.address(),
        &request("GET", "/health", &[("X-Long", &long)], ""),
    )
    .await;
    assert_eq!(answer.status, 431);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_disconnected() {
    let large = Router::new().route("/large", get(|| async { vec![b'x'; 64 << 20] }));
    let mounts = Mounts {
        open: large,
        ..Mounts::default()
    };
    let http = HttpConfig {
        write_timeout_s: 1,
        ..Setup::default().http
    };
    let door = Door::open(Setup {
        http,
        mounts,
        ..Setup::default()
    })
    .await;
    let mut deaf = TcpStream::connect(door.address()).await.unwrap();
    deaf.write_all(&request("GET", "/large", &[], ""))
        .await
        .unwrap();
    let mut first = [0; 12];
    deaf.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let only_this_one =
        async { while door.get("/health").await.json()["http"]["connections"] != 1 {} };
    timeout(PATIENCE, only_this_one)
        .await
        .expect("the deaf client is still served");
    let mut rest = Vec::new();
    let _ = deaf.read_to_end(&mut rest).await;
    assert!(rest.len() < 64 << 20, "everything was sent");
}

#[tokio::test]
async fn sockets_are_limited_and_given_back() {
    let live = LiveConfig {
        sockets_max: 1,
        ..LiveConfig::default()
    };
    let door = Door::open(Setup {
        live,
        ..Setup::default()
    })
    .await;
    let first = door.dashboard().await;
    assert_eq!(door.connect("/ws/live", &[]).await.err(), Some(503));
    assert_eq!(
        door.get("/health").await.json()["live"]["sockets_refused_total"],
        1
    );
    drop(first);
    let freed = async {
        while door.connect("/ws/live", &[]).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, freed).await.unwrap();
}

#[tokio::test]
async fn the_end_is_orderly_and_bounded() {
    let http = HttpConfig {
        shutdown_timeout_s: 1,
        ..Setup::default().http
    };
    let stuck = post(|| async { std::future::pending::<&str>().await });
    let mounts = Mounts {
        open: Router::new().route("/stuck", stuck),
        ..Mounts::default()
    };
    let door = Door::open(Setup {
        http,
        mounts,
        ..Setup::default()
    })
    .await;
    let mut dashboard = door.dashboard().await;
    dashboard
        .say(json!({ "type": "subscribe", "rooms": ["overview"] }))
        .await;
    dashboard.update("overview").await;
    let mut stuck = TcpStream::connect(door.address()).await.unwrap();
    stuck
        .write_all(&request("POST", "/stuck", &[], "x"))
        .await
        .unwrap();
    let mut idle = TcpStream::connect(door.address()).await.unwrap();

    door.cancel.cancel();
    assert_eq!(dashboard.closed_with().await, 1001);
    drop(dashboard);
    timeout(Duration::from_secs(10), async {
        door.handle.stopped().await;
        door.live.stopped().await;
    })
    .await
    .expect("the door did not end");
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
    assert!(TcpStream::connect(door.address()).await.is_err());
}
