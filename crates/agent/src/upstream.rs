//! Connects to what an agent offers, and says in one word why it could not.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_proto::reason::Reason;
use adit_tunnel::scope::Scope;
use adit_tunnel::tls::{self, TlsError, Trust};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{Upstream, UrlError};
use crate::files::{self, Files};

/// Bytes between a handler inside the agent and the relay.
const HANDLER_BUFFER: usize = 64 * 1024;

/// An upstream with everything loaded that connecting needs.
#[derive(Clone)]
pub(crate) enum Target {
    Tcp { host: Arc<str>, port: u16 },
    Tls { host: Arc<str>, port: u16, name: ServerName<'static>, tls: TlsConnector },
    Unix(Arc<std::path::Path>),
    Files(Files),
    Status(StatusCode),
}

/// Why an upstream cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Unfit(UrlError),
    #[error("`{0}` is neither a DNS name nor an address")]
    Name(String),
    #[error("cannot open the directory {path}")]
    Directory {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{0} is not a status code")]
    Status(u16),
}

impl Target {
    /// Loads what connecting needs: authorities, the directory.
    pub(crate) fn prepare(upstream: &Upstream) -> Result<Self, TargetError> {
        Ok(match upstream {
            Upstream::Http { host, port } | Upstream::Tcp { host, port } => {
                Self::Tcp { host: host.as_str().into(), port: *port }
            }
            Upstream::Https { host, port, verify } => {
                let trust = if *verify { Trust::System } else { Trust::Anyone };
                let name =
                    ServerName::try_from(host.clone()).map_err(|_invalid| TargetError::Name(host.clone()))?;
                let tls = TlsConnector::from(tls::upstream_client(&trust)?);
                Self::Tls { host: host.as_str().into(), port: *port, name, tls }
            }
            Upstream::Unix(path) => Self::Unix(path.as_path().into()),
            Upstream::Files { root, browsing } => {
                let files = Files::open(root, *browsing)
                    .map_err(|source| TargetError::Directory { path: root.display().to_string(), source })?;
                Self::Files(files)
            }
            Upstream::Status(code) => {
                Self::Status(StatusCode::from_u16(*code).map_err(|_invalid| TargetError::Status(*code))?)
            }
        })
    }

    /// Connects within `timeout`. Cancel safe. Handlers run in `scope`.
    pub(crate) async fn connect(&self, timeout: Duration, scope: &Scope) -> Result<Connected, Reason> {
        match tokio::time::timeout(timeout, self.try_connect(scope)).await {
            Ok(connected) => connected,
            Err(_elapsed) => Err(Reason::UpstreamTimeout),
        }
    }

    async fn try_connect(&self, scope: &Scope) -> Result<Connected, Reason> {
        match self {
            Self::Tcp { host, port } => connect_tcp(host, *port).await.map(Connected::Tcp),
            Self::Tls { host, port, name, tls } => {
                let tcp = connect_tcp(host, *port).await?;
                let stream = tls.connect(name.clone(), tcp).await.map_err(|error| {
                    tracing::warn!(upstream = %format_args!("{host}:{port}"), %error, "TLS with the upstream failed");
                    Reason::UpstreamTls
                })?;
                Ok(Connected::Tls(Box::new(stream)))
            }
            Self::Unix(path) => {
                UnixStream::connect(path).await.map(Connected::Unix).map_err(|error| connect_reason(&error))
            }
            Self::Files(files) => {
                let files = files.clone();
                Ok(handle(scope, move |request| {
                    let files = files.clone();
                    async move { files.serve(request).await }
                }))
            }
            Self::Status(status) => {
                let status = *status;
                Ok(handle(scope, move |_request| std::future::ready(fixed(status))))
            }
        }
    }
}

async fn connect_tcp(host: &str, port: u16) -> Result<TcpStream, Reason> {
    let tcp = TcpStream::connect((host, port)).await.map_err(|error| connect_reason(&error))?;
    // Without it, an answer in two writes waits for an acknowledgement that is itself delayed by 40 ms.
    tcp.set_nodelay(true).map_err(|error| connect_reason(&error))?;
    adit_tunnel::socket::keep_alive(&tcp).map_err(|error| connect_reason(&error))?;
    Ok(tcp)
}

fn connect_reason(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Reason::UpstreamRefused,
        io::ErrorKind::TimedOut => Reason::UpstreamTimeout,
        _ => Reason::UpstreamUnreachable,
    }
}

fn fixed(status: StatusCode) -> Response<files::Body> {
    let text =
        format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or("")).trim_end().to_owned();
    let empty =
        matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    let body = if empty { Bytes::new() } else { Bytes::from(text + "\n") };
    let mut response = Response::new(Full::new(body).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Serves HTTP on one end of a pipe and returns the other.
fn handle<F, R>(scope: &Scope, respond: F) -> Connected
where
    F: Fn(Request<Incoming>) -> R + Send + 'static,
    R: Future<Output = Response<files::Body>> + Send,
{
    let (near, far) = tokio::io::duplex(HANDLER_BUFFER);
    scope.spawn("handler", async move {
        let service = service_fn(move |request| {
            let response = respond(request);
            async move { Ok::<_, Infallible>(response.await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(far), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection to a handler ended early");
        }
    });
    Connected::Handler(near)
}

/// A connected upstream.
pub(crate) enum Connected {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
    Handler(DuplexStream),
}

impl Connected {
    /// Makes the close that follows a reset where there is such a thing. What was not delivered yet is lost.
    pub(crate) fn abort(&self) {
        if let Self::Tcp(tcp) = self
            && let Err(error) = tcp.set_zero_linger()
        {
            tracing::debug!(%error, "a connection cannot be reset");
        }
    }
}

macro_rules! each {
    ($self:expr, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Connected::Tcp($io) => $call,
            Connected::Tls($io) => $call,
            Connected::Unix($io) => $call,
            Connected::Handler($io) => $call,
        }
    };
}

impl AsyncRead for Connected {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Connected {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}
