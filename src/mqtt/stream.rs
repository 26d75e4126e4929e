//! A client's connection, with or without TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::io::{ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::server::TlsStream;

/// Room that a read through TLS is given: what one TLS record holds. It is held while the connection is
/// idle, too, because nothing says that a record is whole before it has been read.
const TLS_READ_BYTES_MAX: usize = 16 << 10;

pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(crate) fn into_halves(self) -> (FromClient, ToClient) {
        match self {
            Stream::Plain(stream) => {
                let (from, to) = stream.into_split();
                (FromClient::Plain(from), ToClient::Plain(to))
            }
            Stream::Tls(stream) => {
                let (from, to) = tokio::io::split(stream);
                let is_unflushed = false;
                (FromClient::Tls(from), ToClient::Tls { to, is_unflushed })
            }
        }
    }

    /// Reads what there is; 0 at the end.
    pub(crate) async fn read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read_buf(buffer).await,
            Stream::Tls(stream) => stream.read_buf(buffer).await,
        }
    }

    /// The last words.
    pub(crate) async fn end_with(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => {
                stream.write_all(bytes).await?;
                stream.shutdown().await
            }
            Stream::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.shutdown().await
            }
        }
    }
}

/// What the client sends.
pub(crate) enum FromClient {
    Plain(OwnedReadHalf),
    Tls(ReadHalf<Box<TlsStream<TcpStream>>>),
}

/// What one read brought.
pub(crate) struct Got {
    /// 0 at the end.
    pub(crate) bytes: usize,
    /// The room that was made for it is used up.
    pub(crate) is_full: bool,
}

impl FromClient {
    /// Waits for bytes and reads them; room for `room` of them is made in the buffer, where there is no TLS
    /// only once they have come. Nothing is lost where it is not awaited to its end.
    pub(crate) async fn read(&mut self, buffer: &mut BytesMut, room: usize) -> io::Result<Got> {
        let got = |bytes, room| Got {
            bytes,
            is_full: bytes >= room,
        };
        match self {
            FromClient::Plain(half) => loop {
                half.readable().await?;
                if buffer.is_empty() {
                    // Frames cut off it keep the old buffer alive; an idle connection keeps none.
                    *buffer = BytesMut::with_capacity(room);
                } else {
                    buffer.reserve(room);
                }
                let room = buffer.capacity() - buffer.len();
                match half.try_read_buf(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read.map(|bytes| got(bytes, room)),
                }
            },
            FromClient::Tls(half) => {
                let room = room.min(TLS_READ_BYTES_MAX);
                if buffer.is_empty() && buffer.capacity() < room {
                    *buffer = BytesMut::with_capacity(room);
                } else {
                    buffer.reserve(room);
                }
                half.read_buf(buffer).await.map(|bytes| got(bytes, room))
            }
        }
    }
}

impl AsyncRead for FromClient {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            FromClient::Plain(half) => Pin::new(half).poll_read(cx, buffer),
            FromClient::Tls(half) => Pin::new(half).poll_read(cx, buffer),
        }
    }
}

/// What the client is sent.
pub(crate) enum ToClient {
    Plain(OwnedWriteHalf),
    Tls {
        to: WriteHalf<Box<TlsStream<TcpStream>>>,
        /// It has taken bytes that may not have reached the socket.
        is_unflushed: bool,
    },
}

impl ToClient {
    pub(crate) fn is_unflushed(&self) -> bool {
        matches!(
            self,
            ToClient::Tls {
                is_unflushed: true,
                ..
            }
        )
    }

    /// Writes some of the bytes; where there are none, sends what TLS still holds. How many were taken.
    /// Nothing is lost where it is not awaited to its end.
    pub(crate) async fn send(&mut self, out: &mut BytesMut) -> io::Result<usize> {
        if out.is_empty() {
            self.flush().await?;
            return Ok(0);
        }
        match self.write_buf(out).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            bytes => Ok(bytes),
        }
    }
}

impl AsyncWrite for ToClient {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            ToClient::Plain(half) => Pin::new(half).poll_write(cx, bytes),
            ToClient::Tls { to, is_unflushed } => {
                *is_unflushed = true;
                Pin::new(to).poll_write(cx, bytes)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ToClient::Plain(half) => Pin::new(half).poll_flush(cx),
            ToClient::Tls { to, is_unflushed } => {
                let flushed = ready!(Pin::new(to).poll_flush(cx));
                *is_unflushed = flushed.is_err();
                Poll::Ready(flushed)
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ToClient::Plain(half) => Pin::new(half).poll_shutdown(cx),
            ToClient::Tls { to, .. } => Pin::new(to).poll_shutdown(cx),
        }
    }
}
