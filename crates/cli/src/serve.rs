//! A small HTTP/1.1 server: a bounded number of connections, each owned by the loop, all ended with it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use adit_tunnel::scope::Scope;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Connections at once; more wait in the kernel's accept queue.
const MAX_CONNECTIONS: usize = 1024;
/// How long a request's head may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests may go on after the end was asked for.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after a failed accept, most often for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` is ready, then lets open requests finish for a moment. Not cancel safe: dropping it cuts
/// every connection.
pub(crate) async fn until<S, F, B>(listener: TcpListener, service: S, stop: impl Future<Output = ()>)
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (ending, ended) = watch::channel(false);
    let connections = Scope::new();
    let _cut = connections.cancel_on_drop();
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                let connection = connection(stream, service.clone(), ended.clone());
                connections.spawn("http connection", async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(cause) => {
                tracing::warn!(%cause, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    ending.send_replace(true);
    let cut = connections.drain(GRACE).await;
    if cut > 0 {
        tracing::warn!(cut, "connections were cut");
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

async fn connection<S, F, B>(stream: TcpStream, service: S, mut ended: watch::Receiver<bool>)
where
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let answer = |request| {
        let response = service(request);
        async { Ok::<_, Infallible>(response.await) }
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        // A client that has said all it has to say still wants its answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    tokio::pin!(connection);
    // The guard that the channel gives is let go at once: it must not be held across an await.
    let end = async { drop(ended.wait_for(|&ended| ended).await) };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = end => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(cause) = result {
        tracing::debug!(%cause, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_client_that_has_closed_its_half_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (asked, goes_on) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
        let service = {
            let (asked, goes_on) = (Arc::clone(&asked), Arc::clone(&goes_on));
            move |_request| {
                let (asked, goes_on) = (Arc::clone(&asked), Arc::clone(&goes_on));
                async move {
                    asked.notify_one();
                    goes_on.notified().await;
                    Response::new(Full::new(Bytes::from_static(b"hello")))
                }
            }
        };
        let client = async {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
            asked.notified().await;
            goes_on.notify_one();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        };
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let text = async {
            let text = client.await;
            stop.send(()).unwrap();
            text
        };
        let ((), text) = tokio::join!(until(listener, service, async { drop(stopped.await) }), text);
        assert!(text.starts_with("HTTP/1.0 200 OK") && text.ends_with("hello"), "{text:?}");
    }
}
