//! Sends answers: what is in memory by vectored writes, what lies in the log by sendfile, so that record
//! batches are never copied by this process.
//!
//! A sendfile may wait for the disk, so it runs where reads of the log do, and within their number. It
//! never waits for the client: when the socket takes no more, the thread is given back until it does.
//!
//! Through TLS there is no sendfile: what lies in the log is read piece by piece, within
//! `responses_bytes_max`, and encrypted.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use holdfast_storage::log::Run;
use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::io::{AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::broker::Broker;
use super::protocol::{Chunk, ErrorCode, Frame};
use super::stream::ToClient;

/// Of a run that is read to be encrypted; where `responses_bytes_max` has no room, and so without any
/// of it, [`PIECE_BYTES_MIN`], what one TLS record holds.
const PIECE_BYTES_MAX: usize = 256 << 10;
const PIECE_BYTES_MIN: usize = 16 << 10;

/// Why an answer did not reach the client as a whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsent {
    #[error("the client takes no answers")]
    Unread,
    #[error("reading the log: {0}")]
    Log(io::Error),
    #[error("reading the log: {0}")]
    Broker(ErrorCode),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Sends a frame and gives the connection back. `limit` is how long the client may take nothing of it.
pub(super) async fn transmit(
    broker: &Arc<Broker>,
    to: ToClient,
    frame: Frame,
    limit: Duration,
) -> Result<ToClient, Unsent> {
    match to {
        ToClient::Plain(socket) => {
            let socket = send_files(broker, socket, frame, limit).await?;
            Ok(ToClient::Plain(socket))
        }
        ToClient::Tls(mut stream) => {
            send_read(broker, &mut stream, frame, limit).await?;
            Ok(ToClient::Tls(stream))
        }
    }
}

async fn send_read(
    broker: &Arc<Broker>,
    stream: &mut (impl AsyncWrite + Unpin),
    frame: Frame,
    limit: Duration,
) -> Result<(), Unsent> {
    for chunk in frame.into_chunks() {
        match chunk {
            Chunk::Memory(bytes) => write_all(stream, Slices([bytes].into()), limit).await?,
            Chunk::Stored(run) => {
                let mut sent = 0;
                while sent < run.bytes() {
                    let (bytes, _room) = read_piece(broker, &run, sent).await?;
                    sent += bytes.len();
                    write_all(stream, Slices([bytes].into()), limit).await?;
                }
            }
        }
    }
    let flushed = timeout(limit, stream.flush()).await;
    Ok(flushed.map_err(|_| Unsent::Unread)??)
}

/// The next bytes of a run, at least one, and the room that they take.
async fn read_piece(
    broker: &Arc<Broker>,
    run: &Run,
    sent: usize,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Unsent> {
    let left = run.bytes() - sent;
    let wanted = left.min(PIECE_BYTES_MAX);
    let permits = u32::try_from(wanted).unwrap_or(u32::MAX);
    let room = broker.response_bytes().try_acquire_many_owned(permits).ok();
    let bytes = match room {
        Some(_) => wanted,
        None => left.min(PIECE_BYTES_MIN),
    };
    let run = run.clone();
    let read = broker.read(move |_| read_at(&run, sent, bytes));
    let bytes = read.await.map_err(Unsent::Broker)?.map_err(Unsent::Log)?;
    Ok((bytes, room))
}

fn read_at(run: &Run, sent: usize, bytes: usize) -> io::Result<Bytes> {
    let Some((file, position)) = run.file() else {
        return Ok(run.read().map_err(io::Error::other)?.slice(sent..));
    };
    let mut piece = vec![0; bytes];
    file.read_exact_at(&mut piece, position + sent as u64)?;
    Ok(piece.into())
}

async fn send_files(
    broker: &Arc<Broker>,
    mut socket: OwnedWriteHalf,
    frame: Frame,
    limit: Duration,
) -> Result<OwnedWriteHalf, Unsent> {
    let chunks = frame.into_chunks();
    if !chunks.iter().any(Chunk::is_stored) {
        let chunks = chunks.into_iter().filter_map(|chunk| match chunk {
            Chunk::Memory(bytes) => Some(bytes),
            Chunk::Stored(_) => None,
        });
        write_all(&mut socket, Slices(chunks.collect()), limit).await?;
        return Ok(socket);
    }
    let mut left = Left {
        chunks: chunks.into(),
        sent: 0,
    };
    loop {
        let step = move |_: &_| {
            let result = left.send(socket.as_ref());
            (socket, left, result)
        };
        let (given_back, rest, result) = broker.read(step).await.map_err(Unsent::Broker)?;
        (socket, left) = (given_back, rest);
        result?;
        if left.chunks.is_empty() {
            return Ok(socket);
        }
        let writable = timeout(limit, socket.writable()).await;
        writable.map_err(|_| Unsent::Unread)??;
    }
}

async fn write_all(
    socket: &mut (impl AsyncWrite + Unpin),
    mut slices: Slices,
    limit: Duration,
) -> Result<(), Unsent> {
    while slices.has_remaining() {
        match timeout(limit, socket.write_buf(&mut slices)).await {
            Ok(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(Unsent::Unread),
        }
    }
    Ok(())
}

/// What is still to be sent.
struct Left {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that are sent.
    sent: usize,
}

impl Left {
    /// Sends until the socket takes no more, or all is sent.
    fn send(&mut self, socket: &TcpStream) -> Result<(), Unsent> {
        while let Some(chunk) = self.chunks.front() {
            // A short packet would leave at once: more is coming.
            let flags = if self.chunks.len() > 1 {
                SendFlags::MORE
            } else {
                SendFlags::empty()
            };
            let result = match chunk {
                Chunk::Memory(bytes) => {
                    let rest = bytes.get(self.sent..).unwrap_or_default();
                    let send = || Ok(rustix::net::send(socket, rest, flags)?);
                    socket.try_io(Interest::WRITABLE, send)
                }
                Chunk::Stored(run) => {
                    let Some((file, position)) = run.file() else {
                        return Err(Unsent::Log(io::ErrorKind::Unsupported.into()));
                    };
                    let mut at = position + self.sent as u64;
                    let rest = run.bytes() - self.sent;
                    let send = || Ok(rustix::fs::sendfile(socket, file, Some(&mut at), rest)?);
                    match socket.try_io(Interest::WRITABLE, send) {
                        // The file is shorter than it was.
                        Ok(0) => {
                            return Err(Unsent::Log(io::ErrorKind::UnexpectedEof.into()));
                        }
                        Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                            return Err(Unsent::Log(error));
                        }
                        Err(error) if cannot_send_files(&error) => {
                            // This file system, or this kernel, has no sendfile.
                            let bytes = run.read();
                            let bytes = bytes.map_err(|e| Unsent::Log(io::Error::other(e)))?;
                            self.chunks.pop_front();
                            self.chunks.push_front(Chunk::Memory(bytes));
                            continue;
                        }
                        sent => sent,
                    }
                }
            };
            match result {
                Ok(bytes) => self.advance(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        if self
            .chunks
            .front()
            .is_some_and(|chunk| self.sent >= chunk.len())
        {
            self.chunks.pop_front();
            self.sent = 0;
        }
    }
}

fn cannot_send_files(error: &io::Error) -> bool {
    let codes = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP];
    codes
        .iter()
        .any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

/// Slices as one buffer for vectored writes.
struct Slices(VecDeque<Bytes>);

impl Buf for Slices {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn has_remaining(&self) -> bool {
        !self.0.is_empty()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |slice| slice)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.0);
        filled
            .map(|(slice, bytes)| *slice = IoSlice::new(bytes))
            .count()
    }

    fn advance(&mut self, mut bytes: usize) {
        while let Some(front) = self.0.front_mut() {
            if bytes < front.len() {
                front.advance(bytes);
                return;
            }
            bytes -= front.len();
            self.0.pop_front();
        }
    }
}
