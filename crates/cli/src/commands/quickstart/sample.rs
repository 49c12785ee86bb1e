//! A small private service to expose: a page, `/hello` and `/metrics`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

const PAGE: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Adit quickstart</title>\
<h1>It works</h1><p>This page comes from a service that listens on loopback only. It reached you through a gateway \
and an agent that dialled out to it.</p><p><a href=/hello>/hello</a> · <a href=/metrics>/metrics</a></p></html>\n";

/// Requests by page.
#[derive(Debug, Default)]
struct Hits {
    page: AtomicU64,
    hello: AtomicU64,
    metrics: AtomicU64,
    other: AtomicU64,
}

impl Hits {
    fn exposition(&self) -> String {
        let mut text = "# HELP sample_requests_total Requests to the sample service.\n\
                        # TYPE sample_requests_total counter\n"
            .to_owned();
        let rows =
            [("/", &self.page), ("/hello", &self.hello), ("/metrics", &self.metrics), ("other", &self.other)];
        for (page, hits) in rows {
            let hits = hits.load(Ordering::Relaxed);
            let _infallible = writeln!(text, "sample_requests_total{{page=\"{page}\"}} {hits}");
        }
        text
    }

    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let (hits, status, kind) = match path {
            "/" => (&self.page, StatusCode::OK, HTML),
            "/hello" => (&self.hello, StatusCode::OK, TEXT),
            "/metrics" => (&self.metrics, StatusCode::OK, METRICS),
            _ => (&self.other, StatusCode::NOT_FOUND, TEXT),
        };
        hits.fetch_add(1, Ordering::Relaxed);
        let body = match path {
            "/" => Bytes::from_static(PAGE.as_bytes()),
            "/hello" => Bytes::from_static(b"hello from behind the tunnel\n"),
            "/metrics" => self.exposition().into(),
            _ => Bytes::from_static(b"try /, /hello or /metrics\n"),
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

/// The service.
pub(super) fn service()
-> impl Fn(Request<Incoming>) -> std::future::Ready<Response<Full<Bytes>>> + Clone + Send + Sync + 'static {
    let hits = Arc::new(Hits::default());
    move |request| std::future::ready(hits.answer(request.uri().path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_page() {
        let hits = Hits::default();
        assert_eq!(hits.answer("/hello").status(), StatusCode::OK);
        assert_eq!(hits.answer("/nowhere").status(), StatusCode::NOT_FOUND);
        let text = hits.exposition();
        assert!(text.contains("{page=\"/hello\"} 1") && text.contains("{page=\"other\"} 1"), "{text}");
    }
}
