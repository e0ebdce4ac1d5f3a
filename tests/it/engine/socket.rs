//! Connections of the stand-in, acknowledged at once.
//!
//! The engine's client does not set `TCP_NODELAY`: it holds back the second piece of a
//! request until the first is acknowledged, which the kernel puts off by 40 ms. Tests need
//! not wait for that.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::net::sockopt::{set_tcp_nodelay, set_tcp_quickack};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::Shared;

pub(super) struct Socket(TcpStream, Arc<Shared>);

impl Socket {
    pub(super) fn new(stream: TcpStream, shared: Arc<Shared>) -> Self {
        set_tcp_nodelay(&stream, true).unwrap();
        let mut state = shared.lock();
        state.connections.0 += 1;
        state.connections.1 += 1;
        drop(state);
        Self(stream, shared)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.1.lock().connections.0 -= 1;
        self.1.tell();
    }
}

impl Connected for Socket {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.0.connect_info()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.0).poll_read(ctx, buffer);
        // It holds until the kernel thinks better of it.
        let _ = set_tcp_quickack(&self.0, true);
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(ctx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(ctx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(ctx)
    }
}
