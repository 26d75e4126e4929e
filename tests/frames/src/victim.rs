//! A connection that sends frames and judges what comes back: a frame that can be understood is
//! answered, in the schema of its version and in its turn; any other ends its connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use holdfast::kafka::protocol::messages::JoinGroupRequest;
use holdfast::kafka::protocol::{
    ApiKey, DecodeError, Request, decode_header, decode_request, decode_response,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::compose::{Frame, PLAIN_BYTES_MAX};
use crate::names::Names;

/// Whoever waits longer for an answer that nothing holds up waits for one that does not come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long an answer is waited for that may rightly take its time.
const LINGER: Duration = Duration::from_millis(20);

/// Largest answer, in bytes: as much as a Fetch may carry, and room for the rest.
const ANSWER_BYTES_MAX: usize = 64 << 20;

const REQUEST_BYTES_MAX: usize = 16 << 20;

/// What has to follow a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// An answer of this API in this version to this id.
    Answer(ApiKey, i16, i32),
    /// The same, but when is for others to say.
    AnswerInTime(ApiKey, i16, i32),
    /// Nothing, or the end: acks=0.
    Silence,
    /// The end of the connection.
    End,
    /// The end or another request's answer: its length was a lie.
    Anything,
}

/// What was seen of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    Answered {
        bytes: usize,
    },
    Ended,
    /// The attacker left first.
    Left,
}

/// Which frame it is: with the run's seed it says what is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Number {
    /// A request.
    Frame(u64),
    /// One of an exchange of SASL.
    Exchange(u64),
    /// Out of a file.
    Kept(u64),
}

/// A frame that has its turn.
#[derive(Clone, Debug)]
pub struct Thrown {
    pub number: Number,
    pub frame: Frame,
    pub due: Due,
}

/// The promise that was broken.
#[derive(Debug)]
pub struct Broken {
    pub what: String,
    /// What was sent over the connection.
    pub sent: Vec<(Number, Frame)>,
    /// Which of it the promise was about.
    pub at: usize,
}

/// What is to be expected of this frame. `None`: it is not to be sent, for it would hold back everybody,
/// and rightly so.
pub fn due(frame: &Frame) -> Option<Due> {
    if frame.lies() {
        return Some(Due::Anything);
    }
    let bytes = frame.bytes.len();
    let Ok(header) = decode_header(&frame.bytes) else {
        return Some(Due::End);
    };
    let Some(api) = ApiKey::from_code(header.api_key) else {
        return Some(Due::End);
    };
    let bytes_max = if api == ApiKey::Produce {
        REQUEST_BYTES_MAX
    } else {
        PLAIN_BYTES_MAX
    };
    if bytes == 0 || bytes > bytes_max {
        return Some(Due::End);
    }
    let (version, id) = (header.api_version, header.correlation_id);
    let answer = Due::Answer(api, version, id);
    let in_time = Due::AnswerInTime(api, version, id);
    Some(match decode_request(frame.bytes.clone()) {
        Ok((_, Request::Produce(request))) if request.acks == 0 => Due::Silence,
        Ok((_, Request::Fetch(request))) if request.max_wait_ms > 10 => in_time,
        Ok((_, Request::JoinGroup(JoinGroupRequest { .. }) | Request::SyncGroup(_))) => in_time,
        Ok((_, Request::AlterClientQuotas(request))) => {
            let ops = request.entries.iter().flat_map(|entry| &entry.ops);
            let holds_back = ops
                .clone()
                .any(|op| !op.remove && op.value < 1e8 && op.value >= 0.0);
            if holds_back {
                return None;
            }
            answer
        }
        Ok(_) => answer,
        Err(DecodeError::UnsupportedVersion { .. }) if api == ApiKey::ApiVersions => {
            Due::Answer(api, 0, id)
        }
        Err(_) => Due::End,
    })
}

/// A connection to the door.
pub struct Victim<'a> {
    socket: TcpStream,
    names: &'a Names,
    sent: Vec<(Number, Frame)>,
}

impl<'a> Victim<'a> {
    pub async fn connect(address: SocketAddr, names: &'a Names) -> Result<Victim<'a>, Broken> {
        let socket = TcpStream::connect(address).await;
        match socket.and_then(|socket| socket.set_nodelay(true).map(|()| socket)) {
            Ok(socket) => Ok(Victim::over(socket, names)),
            Err(error) => Err(Broken {
                what: format!("cannot connect: {error}"),
                sent: Vec::new(),
                at: 0,
            }),
        }
    }

    /// Over a connection that stands.
    pub fn over(socket: TcpStream, names: &'a Names) -> Victim<'a> {
        let sent = Vec::new();
        Victim {
            socket,
            names,
            sent,
        }
    }

    pub fn sent(&self) -> usize {
        self.sent.len()
    }

    fn broken<T>(&mut self, at: usize, what: String) -> Result<T, Broken> {
        let sent = std::mem::take(&mut self.sent);
        Err(Broken { what, sent, at })
    }

    /// Sends frames that have to be answered, all at once, and takes their answers.
    pub async fn all(
        &mut self,
        thrown: &[Thrown],
        mut seen: impl FnMut(&Frame, Seen),
    ) -> Result<(), Broken> {
        let first = self.sent.len();
        let mut together = Vec::new();
        for Thrown { number, frame, .. } in thrown {
            frame.write(&mut together);
            self.sent.push((*number, frame.clone()));
        }
        let names = self.names;
        let (mut from, mut to) = self.socket.split();
        let reading = async {
            for (place, Thrown { frame, due, .. }) in thrown.iter().enumerate() {
                let judged = match timeout(PATIENCE, answer(&mut from)).await {
                    Ok(Ok(Some(answer))) => judge(names, *due, answer),
                    Ok(Ok(None)) => Err("not answered but hung up on".to_owned()),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err(format!("no answer in {PATIENCE:?}")),
                };
                match judged {
                    Ok(bytes) => seen(frame, Seen::Answered { bytes }),
                    Err(what) => return Err((place, format!("{what}; due: {due:?}"))),
                }
            }
            Ok(())
        };
        let writing = async { to.write_all(&together).await };
        let (read, _) = tokio::join!(reading, writing);
        match read {
            Ok(()) => Ok(()),
            Err((place, what)) => self.broken(first + place, what),
        }
    }

    /// Sends the last frame of this connection, of any kind.
    pub async fn last(mut self, thrown: &Thrown) -> Result<Seen, Broken> {
        let due = thrown.due;
        let at = self.sent.len();
        self.sent.push((thrown.number, thrown.frame.clone()));
        match self.try_last(&thrown.frame, due).await {
            Ok(seen) => Ok(seen),
            Err(what) => self.broken(at, format!("{what}; due: {due:?}")),
        }
    }

    async fn try_last(&mut self, frame: &Frame, due: Due) -> Result<Seen, String> {
        let mut whole = Vec::new();
        frame.write(&mut whole);
        match timeout(PATIENCE, self.socket.write_all(&whole)).await {
            // Whoever is hung up on while writing is told so by reading.
            Ok(_) => {}
            Err(_) => return Err("the door reads nothing".to_owned()),
        }
        let patience = match due {
            Due::Answer(..) | Due::End => PATIENCE,
            Due::AnswerInTime(..) => LINGER,
            Due::Silence | Due::Anything => {
                // Whatever follows has come to its end by then.
                let _ = self.socket.shutdown().await;
                PATIENCE
            }
        };
        let mut seen = Seen::Left;
        loop {
            let answered = match timeout(patience, answer(&mut self.socket)).await {
                Err(_) if matches!(due, Due::AnswerInTime(..)) => return Ok(Seen::Left),
                Err(_) => return Err(format!("neither answer nor end in {patience:?}")),
                Ok(Ok(answered)) => answered,
                // The end, with something of ours unread.
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => None,
                Ok(Err(error)) => return Err(error.to_string()),
            };
            match (answered, due) {
                (Some(answer), Due::Answer(..) | Due::AnswerInTime(..)) => {
                    let bytes = judge(self.names, due, answer)?;
                    return Ok(Seen::Answered { bytes });
                }
                (Some(answer), Due::Anything) => {
                    let bytes = answer.len();
                    seen = Seen::Answered { bytes };
                }
                (Some(answer), _) => return Err(format!("{} bytes of an answer", answer.len())),
                (None, Due::Answer(..) | Due::AnswerInTime(..)) => {
                    return Err("hung up on".to_owned());
                }
                (None, Due::End) => return Ok(Seen::Ended),
                (None, _) if seen == Seen::Left => return Ok(Seen::Ended),
                (None, _) => return Ok(seen),
            }
        }
    }
}

/// The next frame without its length; `None` at the end.
pub(crate) async fn answer(from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Option<Bytes>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > ANSWER_BYTES_MAX {
        return Err(io::Error::other(format!("an answer of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    Ok(Some(bytes.into()))
}

/// Whether it is the answer that was due; its size.
fn judge(names: &Names, due: Due, answer: Bytes) -> Result<usize, String> {
    let (Due::Answer(api, version, id) | Due::AnswerInTime(api, version, id)) = due else {
        return Err("an answer to nothing".to_owned());
    };
    let bytes = answer.len();
    match decode_response(api, version, answer) {
        Ok((answered, _)) if answered != id => Err(format!(
            "id {answered} where {id} was due, {api:?} {version}"
        )),
        Ok((_, response)) => {
            names.learn(&response);
            Ok(bytes)
        }
        // The limit of this side: long lists of small things.
        Err(DecodeError::TooMuchStructure { .. }) => Ok(bytes),
        Err(error) => Err(format!(
            "the answer cannot be read: {error}, {api:?} {version}, {bytes} bytes"
        )),
    }
}
