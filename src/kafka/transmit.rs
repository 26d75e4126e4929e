//! Sends answers: what is in memory by vectored writes, what lies in the log by sendfile, so that record
//! batches are never copied by this process.
//!
//! A sendfile may wait for the disk, so it runs where reads of the log do, and within their number. It
//! never waits for the client: when the socket takes no more, the thread is given back until it does.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::timeout;

use super::broker::Broker;
use super::protocol::{Chunk, ErrorCode, Frame};

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

/// Sends a frame and gives the socket back. `limit` is how long the client may take nothing of it.
pub(super) async fn transmit(
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
    socket: &mut OwnedWriteHalf,
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
