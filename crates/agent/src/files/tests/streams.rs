//! How bodies behave while they are sent.

use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::super::Body;
use super::{Site, site};

const CHUNK: usize = 64 * 1024;

async fn open(site: &Site, path: &str) -> Response<Body> {
    site.files.serve(Request::get(path).body(Empty::<Bytes>::new()).unwrap()).await
}

async fn next(body: &mut Body) -> Option<std::io::Result<Bytes>> {
    let frame = body.frame().await?;
    Some(frame.map(|frame| frame.into_data().unwrap()))
}

fn sparse(site: &Site, name: &str, len: u64) -> File {
    let file = File::create(site.root.join(name)).unwrap();
    file.set_len(len).unwrap();
    file
}

#[tokio::test]
async fn a_gibibyte_is_streamed_in_small_chunks() {
    let site = site(false);
    let _file = sparse(&site, "big.bin", 1 << 30);
    let response = open(&site, "/big.bin").await;
    assert_eq!(response.headers()["content-length"], "1073741824");
    let mut body = response.into_body();
    let (mut total, mut longest) = (0_u64, 0);
    while let Some(chunk) = next(&mut body).await {
        let chunk = chunk.unwrap();
        total += chunk.len() as u64;
        longest = longest.max(chunk.len());
    }
    assert_eq!((total, longest), (1 << 30, CHUNK));
}

#[tokio::test]
async fn a_body_always_knows_how_much_is_left() {
    let site = site(false);
    let _file = sparse(&site, "file.bin", 100_000);
    let mut body = open(&site, "/file.bin").await.into_body();
    for (left, sent) in [(100_000, CHUNK), (100_000 - CHUNK, 100_000 - CHUNK)] {
        assert_eq!(body.size_hint().exact(), Some(left as u64));
        assert!(!body.is_end_stream());
        assert_eq!(next(&mut body).await.unwrap().unwrap().len(), sent);
    }
    assert_eq!(body.size_hint().exact(), Some(0));
    assert!(body.is_end_stream());
    assert!(next(&mut body).await.is_none());
}

#[tokio::test]
async fn a_file_that_shrinks_ends_its_body_with_an_error() {
    let site = site(false);
    let file = sparse(&site, "file.bin", 300_000);
    // Cut at a chunk's end, in the middle of a chunk, and to nothing.
    for left in [2 * CHUNK as u64, 2 * CHUNK as u64 + 1, 0] {
        file.set_len(300_000).unwrap();
        let mut body = open(&site, "/file.bin").await.into_body();
        assert_eq!(next(&mut body).await.unwrap().unwrap().len(), CHUNK);
        file.set_len(left).unwrap();
        let mut total = CHUNK;
        let error = loop {
            match next(&mut body).await.expect("the body must not end as if it were whole") {
                Ok(chunk) => total += chunk.len(),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        assert!(total as u64 <= left.max(CHUNK as u64), "nothing is padded");
        assert!(next(&mut body).await.is_none(), "nothing follows the error");
    }
}

#[tokio::test]
async fn a_file_that_shrinks_cuts_its_connection() {
    let site = site(false);
    let file = sparse(&site, "file.bin", 1 << 20);
    let (near, far) = tokio::io::duplex(4096);
    let service = service_fn(|request| {
        let files = site.files.clone();
        async move { Ok::<_, Infallible>(files.serve(request).await) }
    });
    let server = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
    let client = async move {
        let request = Request::get("/file.bin").header("host", "test").body(Empty::<Bytes>::new()).unwrap();
        let mut body = sender.send_request(request).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        file.set_len(0).unwrap();
        body.collect().await.map(|_| ())
    };
    let (served, _connected, received) = tokio::join!(server, connection, client);
    assert!(served.is_err(), "the server must not take the connection for reusable");
    assert!(received.is_err(), "the client must see that the file is incomplete");
}

#[tokio::test]
async fn a_file_that_grows_is_sent_as_long_as_announced() {
    let site = site(false);
    let mut file = sparse(&site, "file.bin", 100_000);
    let mut body = open(&site, "/file.bin").await.into_body();
    let mut total = next(&mut body).await.unwrap().unwrap().len();
    file.write_all(&[1; 200_000]).unwrap();
    while let Some(chunk) = next(&mut body).await {
        total += chunk.unwrap().len();
    }
    assert_eq!(total, 100_000);
}

#[tokio::test]
async fn a_file_that_is_replaced_is_sent_as_it_was() {
    let site = site(false);
    let _file = sparse(&site, "file.bin", 100_000);
    let mut body = open(&site, "/file.bin").await.into_body();
    let first = next(&mut body).await.unwrap().unwrap();
    std::fs::rename(site.root.join("digits.txt"), site.root.join("file.bin")).unwrap();
    let second = next(&mut body).await.unwrap().unwrap();
    assert_eq!(first.len() + second.len(), 100_000);
    assert!(second.iter().all(|byte| *byte == 0));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn dropping_a_body_or_taking_its_last_chunk_closes_the_file() {
    let site = site(false);
    let path = site.root.join("file.bin");
    drop(sparse(&site, "file.bin", 100_000));
    let is_open = || {
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).any(|target| target == path)
    };
    let mut body = open(&site, "/file.bin").await.into_body();
    next(&mut body).await.unwrap().unwrap();
    assert!(is_open());
    drop(body);
    assert!(!is_open(), "after a body is dropped");
    let mut body = open(&site, "/file.bin").await.into_body();
    next(&mut body).await.unwrap().unwrap();
    next(&mut body).await.unwrap().unwrap();
    assert!(!is_open(), "after the last chunk");
}

#[tokio::test]
async fn many_requests_share_one_open_directory() {
    let site = site(false);
    let answers = [0; 32].map(|_| site.get("/digits.txt"));
    for answer in answers {
        assert_eq!(answer.await.text(), "0123456789");
    }
}

#[tokio::test]
async fn answers_can_move_between_threads() {
    fn movable<T: Send>(value: T) -> T {
        value
    }
    fn shared<T: Send + Sync + 'static>(value: T) -> T {
        value
    }
    let site = site(false);
    let response = movable(site.files.serve(Request::get("/digits.txt").body(()).unwrap())).await;
    assert_eq!(shared(response).status(), 200);
}
