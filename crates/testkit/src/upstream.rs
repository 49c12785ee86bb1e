//! What stands behind an agent: an HTTP/1.1 server that records exactly what came, or a script for each connection.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use adit_tunnel::scope::Scope;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use crate::wire::{Content, Head, Wire};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its head, byte for byte.
    pub head: Head,
    /// Its body.
    pub content: Content,
    /// The connection it came on, counted from 1.
    pub connection: usize,
}

/// What is sent back.
#[derive(Debug, Clone)]
pub struct Answer {
    bytes: Vec<u8>,
    close: bool,
}

impl Answer {
    /// These bytes and no others.
    #[must_use]
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self { bytes: bytes.as_ref().to_vec(), close: false }
    }

    /// A response with a body of known length. `fields` end with CRLF each.
    #[must_use]
    pub fn new(status: u16, fields: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{fields}\r\n", body.len());
        Self::raw([head.as_bytes(), body].concat())
    }

    /// 200 with a text.
    #[must_use]
    pub fn text(text: impl AsRef<[u8]>) -> Self {
        Self::new(200, "content-type: text/plain\r\n", text)
    }

    /// Closes the connection behind it.
    #[must_use]
    pub fn and_close(mut self) -> Self {
        self.close = true;
        self
    }
}

#[derive(Debug, Default)]
struct Seen {
    accepted: AtomicUsize,
    open: AtomicUsize,
    requests: Mutex<Vec<Request>>,
}

/// A server behind an agent. Ends when dropped.
#[derive(Debug)]
pub struct Upstream {
    url: String,
    addr: Option<SocketAddr>,
    seen: Arc<Seen>,
    scope: Scope,
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, TlsAcceptor),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self, number: usize) -> io::Result<Wire> {
        Ok(match self {
            Self::Tcp(listener) => {
                let tcp = listener.accept().await?.0;
                tcp.set_nodelay(true)?;
                Wire::new(tcp, number)
            }
            Self::Tls(listener, acceptor) => {
                Wire::new(acceptor.accept(listener.accept().await?.0).await?, number)
            }
            Self::Unix(listener) => Wire::new(listener.accept().await?.0, number),
        })
    }
}

struct Open(Arc<Seen>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Upstream {
    fn start<F, R>(listener: Listener, url: String, addr: Option<SocketAddr>, serve: F) -> Self
    where
        F: Fn(Wire, Arc<Seen>) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let (seen, scope) = (Arc::<Seen>::default(), Scope::new());
        let (shared, tasks) = (Arc::clone(&seen), scope.clone());
        scope.spawn("upstream", async move {
            for number in 1.. {
                let Ok(wire) = listener.accept(number).await else { continue };
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                shared.open.fetch_add(1, Ordering::SeqCst);
                let (open, served) = (Open(Arc::clone(&shared)), serve(wire, Arc::clone(&shared)));
                tasks.spawn("upstream connection", async move {
                    served.await;
                    drop(open);
                });
            }
        });
        Self { url, addr, seen, scope }
    }

    /// Plays `script` on every connection; the connection is closed when that ends.
    pub async fn scripted<F, R>(script: F) -> Self
    where
        F: Fn(Wire) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        Self::start(Listener::Tcp(listener), format!("http://{addr}"), Some(addr), move |wire, _| {
            script(wire)
        })
    }

    /// Reads whole requests and answers each; connections stay open unless the answer says otherwise.
    pub async fn answering<F>(answer: F) -> Self
    where
        F: Fn(&Request) -> Answer + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        Self::start(Listener::Tcp(listener), format!("http://{addr}"), Some(addr), http1(answer))
    }

    /// As [`Upstream::answering`], by TLS with this certificate.
    pub async fn answering_tls<F>(config: Arc<ServerConfig>, answer: F) -> Self
    where
        F: Fn(&Request) -> Answer + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let listener = Listener::Tls(listener, TlsAcceptor::from(config));
        Self::start(listener, format!("https://{addr}"), Some(addr), http1(answer))
    }

    /// As [`Upstream::answering`], on a unix socket.
    pub fn answering_unix<F>(path: &Path, answer: F) -> Self
    where
        F: Fn(&Request) -> Answer + Send + Sync + 'static,
    {
        let listener = Listener::Unix(UnixListener::bind(path).unwrap());
        Self::start(listener, format!("unix:{}", path.display()), None, http1(answer))
    }

    /// Answers every request with the bytes of its head and body.
    pub async fn echo() -> Self {
        Self::answering(|request| Answer::text([&request.head.raw[..], &request.content.bytes].concat()))
            .await
    }

    /// Answers every request with this text.
    pub async fn named(name: &'static str) -> Self {
        Self::answering(move |_| Answer::text(name)).await
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr.unwrap()
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.seen.accepted.load(Ordering::SeqCst)
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// Every request that arrived whole, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().clone()
    }
}

type Served = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn http1<F>(answer: F) -> impl Fn(Wire, Arc<Seen>) -> Served + Send + 'static
where
    F: Fn(&Request) -> Answer + Send + Sync + 'static,
{
    let answer = Arc::new(answer);
    move |mut wire, seen| {
        let answer = Arc::clone(&answer);
        Box::pin(async move {
            loop {
                // Connections wait here for their next request, however long that takes.
                while !wire.waiting().windows(4).any(|end| end == b"\r\n\r\n") {
                    if wire.fill_for_ever().await == 0 {
                        return;
                    }
                }
                let Some(head) = wire.head().await else { return };
                let content = wire.request_body(&head).await;
                if !content.complete {
                    return;
                }
                let request = Request { head, content, connection: wire.number };
                let Answer { bytes, close } = answer(&request);
                seen.requests.lock().push(request);
                if wire.try_send(bytes).await.is_err() || close {
                    return;
                }
            }
        })
    }
}
