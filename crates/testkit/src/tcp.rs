//! What stands behind an agent for a TCP service: a script for each connection.

use std::fmt;
use std::net::SocketAddr;

use adit_tunnel::scope::Scope;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A TCP server. Ends when dropped, with every connection.
#[derive(Debug)]
pub struct Tcp {
    /// Where it listens.
    pub addr: SocketAddr,
    scope: Scope,
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

impl fmt::Display for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp://{}", self.addr)
    }
}

impl Tcp {
    /// Runs `serve` for every connection.
    pub async fn scripted<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, scope) = (listener.local_addr().unwrap(), Scope::new());
        let connections = scope.clone();
        scope.spawn("tcp upstream", async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                connections.spawn("tcp upstream connection", serve(tcp));
            }
        });
        Self { addr, scope }
    }

    /// Sends back what it is sent, and ends when it has been told all.
    pub async fn echo() -> Self {
        Self::scripted(|mut tcp| async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(n @ 1..) = tcp.read(&mut buffer).await {
                if tcp.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
            }
        })
        .await
    }

    /// Says its name and closes.
    pub async fn named(name: &'static str) -> Self {
        Self::scripted(move |mut tcp| async move { drop(tcp.write_all(name.as_bytes()).await) }).await
    }
}
