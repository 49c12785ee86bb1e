//! The file server as a client sees it.

mod answers;
mod conditions;
mod listings;
mod paths;
mod ranges;
mod streams;

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use tempfile::TempDir;

use super::Files;

/// A served directory, and beside it what must never be served.
struct Site {
    _around: TempDir,
    root: PathBuf,
    outside: PathBuf,
    files: Files,
}

/// An answer that was read to its end.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

fn site(browsing: bool) -> Site {
    let around = tempfile::tempdir().unwrap();
    let root = around.path().join("root");
    let outside = around.path().join("outside");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret.txt"), "secret").unwrap();
    fs::write(root.join("digits.txt"), "0123456789").unwrap();
    fs::write(root.join("sub/inner.txt"), "inner").unwrap();
    let files = Files::open(&root, browsing).unwrap();
    Site { _around: around, root, outside, files }
}

impl Site {
    async fn get(&self, path: &str) -> Answer {
        ask(&self.files, Method::GET, path, &[]).await
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        ask(&self.files, Method::GET, path, headers).await
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        fs::write(self.root.join(path), content).unwrap();
    }
}

async fn ask(files: &Files, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = files.serve(request.body(Empty::<Bytes>::new()).unwrap()).await;
    let (head, body) = response.into_parts();
    Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Checks the whole answer, so that nothing can leak beside the text.
    fn assert_not_found(&self, case: &str) {
        assert_eq!(self.status, 404, "{case}");
        assert_eq!(self.text(), "unable to find requested file\n", "{case}");
        assert_eq!(self.headers.len(), 3, "{case}");
        assert_eq!(self.header("content-type"), "text/plain; charset=utf-8", "{case}");
        assert_eq!(self.header("x-content-type-options"), "nosniff", "{case}");
        assert_eq!(self.header("content-length"), "30", "{case}");
    }
}
