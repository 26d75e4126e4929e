//! The two halves of a connection, with or without TLS.
//!
//! Without TLS the halves are the socket's own, which [`super::transmit`] sends files to.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::server::TlsStream;

/// What the client sends.
pub(super) enum FromClient {
    Plain(OwnedReadHalf),
    Tls(ReadHalf<TlsStream<TcpStream>>),
}

/// What the client is sent.
pub(super) enum ToClient {
    Plain(OwnedWriteHalf),
    /// Must be flushed after every answer.
    Tls(WriteHalf<TlsStream<TcpStream>>),
}

pub(super) fn plain(socket: TcpStream) -> (FromClient, ToClient) {
    let (from, to) = socket.into_split();
    (FromClient::Plain(from), ToClient::Plain(to))
}

pub(super) fn tls(stream: TlsStream<TcpStream>) -> (FromClient, ToClient) {
    let (from, to) = tokio::io::split(stream);
    (FromClient::Tls(from), ToClient::Tls(to))
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

impl AsyncWrite for ToClient {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            ToClient::Plain(half) => Pin::new(half).poll_write(cx, bytes),
            ToClient::Tls(half) => Pin::new(half).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            ToClient::Plain(half) => Pin::new(half).poll_write_vectored(cx, slices),
            ToClient::Tls(half) => Pin::new(half).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            ToClient::Plain(half) => half.is_write_vectored(),
            ToClient::Tls(half) => half.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ToClient::Plain(half) => Pin::new(half).poll_flush(cx),
            ToClient::Tls(half) => Pin::new(half).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ToClient::Plain(half) => Pin::new(half).poll_shutdown(cx),
            ToClient::Tls(half) => Pin::new(half).poll_shutdown(cx),
        }
    }
}
