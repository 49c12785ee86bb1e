//! Methods, headers, credentials, and the text of errors.

use std::io;
use std::path::Path;

use http::Method;

use super::super::{Files, Refusal, lookup};
use super::{ask, site};

#[tokio::test]
async fn a_file_is_served_with_its_headers() {
    let site = site(false);
    let answer = site.get("/digits.txt").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), "0123456789");
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("accept-ranges"), "bytes");
    assert_eq!(answer.header("content-length"), "10");
    assert!(httpdate::parse_http_date(answer.header("last-modified")).is_ok());
    let etag = answer.header("etag");
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 2, "{etag}");
}

#[tokio::test]
async fn the_content_type_follows_the_extension() {
    let site = site(false);
    let cases = [
        ("page.html", "text/html; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("script.js", "text/javascript; charset=utf-8"),
        ("data.json", "application/json"),
        ("image.PNG", "image/png"),
        ("code.wasm", "application/wasm"),
        ("unknown.adit", "application/octet-stream"),
        ("README", "application/octet-stream"),
    ];
    for (name, expected) in cases {
        site.write(name, "");
        assert_eq!(site.get(&format!("/{name}")).await.header("content-type"), expected, "{name}");
    }
}

#[tokio::test]
async fn an_empty_file_is_an_empty_answer() {
    let site = site(false);
    site.write("empty.txt", "");
    let answer = site.get("/empty.txt").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-length"), answer.text()), (200, "0", ""));
}

#[tokio::test]
async fn a_missing_file_is_answered_with_the_exact_text() {
    site(true).get("/missing.txt").await.assert_not_found("missing");
}

#[tokio::test]
async fn options_tells_the_methods() {
    let site = site(false);
    for path in ["/digits.txt", "/missing", "*"] {
        let answer = ask(&site.files, Method::OPTIONS, path, &[]).await;
        assert_eq!(answer.status, 204, "{path}");
        assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS", "{path}");
        assert!(answer.body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn other_methods_are_refused() {
    let site = site(false);
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"] {
        let answer = ask(&site.files, method.parse().unwrap(), "/digits.txt", &[]).await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS", "{method}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8", "{method}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{method}");
    }
}

#[tokio::test]
async fn a_head_has_the_headers_of_its_get_and_no_body() {
    let site = site(true);
    site.write("empty", "");
    for path in ["/digits.txt", "/empty", "/missing", "/sub", "/sub/", "/", "/%00", "/../x"] {
        let get = site.get(path).await;
        let head = ask(&site.files, Method::HEAD, path, &[]).await;
        assert_eq!((head.status, &head.headers), (get.status, &get.headers), "{path}");
        assert_eq!(get.header("content-length"), get.body.len().to_string(), "{path}");
        assert!(head.body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_file_that_may_not_be_read_is_forbidden() {
    let denied = io::Error::from(io::ErrorKind::PermissionDenied);
    assert_eq!(lookup::refusal(&denied), Refusal::NotFound, "refused by the sandbox, not by the system");
    #[cfg(unix)]
    {
        use std::fs;
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(lookup::refusal(&io::Error::from_raw_os_error(13)), Refusal::Forbidden);
        let site = site(false);
        let path = site.root.join("digits.txt");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        // Permissions do not bind the superuser, so there the system has nothing to refuse.
        if fs::File::open(&path).is_err() {
            let answer = site.get("/digits.txt").await;
            assert_eq!(answer.status, 403);
            assert_eq!(answer.text(), "not permitted to read requested file\n");
        }
    }
}

#[tokio::test]
async fn every_refusal_is_plain_text() {
    let expected = [
        (Refusal::Malformed, 400),
        (Refusal::NotFound, 404),
        (Refusal::Forbidden, 403),
        (Refusal::Failed, 500),
    ];
    for (refusal, code) in expected {
        let response = refusal.response();
        assert_eq!(response.status(), code);
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
}

#[tokio::test]
async fn credentials_are_demanded_of_every_method() {
    let site = site(true);
    let files = site.files.clone().with_basic_auth("ann", "pass:word");
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST] {
        for path in ["/digits.txt", "/missing", "/%00"] {
            let answer = ask(&files, method.clone(), path, &[]).await;
            assert_eq!(answer.status, 401, "{method} {path}");
            assert_eq!(answer.header("www-authenticate"), "Basic realm=\"adit\", charset=\"UTF-8\"");
            assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        }
    }
}

#[tokio::test]
async fn only_the_right_credentials_are_admitted() {
    let site = site(false);
    let files = site.files.clone().with_basic_auth("ann", "pass:word");
    // "ann:pass:word" with its scheme in three spellings, then what is nearly that.
    let cases = [
        ("Basic YW5uOnBhc3M6d29yZA==", 200),
        ("basic YW5uOnBhc3M6d29yZA==", 200),
        ("BASIC   YW5uOnBhc3M6d29yZA==", 200),
        ("BasicYW5uOnBhc3M6d29yZA==", 401),
        ("Bearer YW5uOnBhc3M6d29yZA==", 401),
        ("Basic YW5uOnBhc3M6d29yZA", 401),
        ("Basic YW5uOnBhc3M6d29yZQ==", 401),
        ("Basic YW5uOnBhc3M6d29yZA==YW5uOnBhc3M6d29yZA==", 401),
        ("Basic ", 401),
        ("Basic", 401),
        ("", 401),
    ];
    for (field, code) in cases {
        let answer = ask(&files, Method::GET, "/digits.txt", &[("authorization", field)]).await;
        assert_eq!(answer.status, code, "{field}");
    }
    let twice = [("authorization", cases[0].0), ("authorization", cases[0].0)];
    assert_eq!(ask(&files, Method::GET, "/digits.txt", &twice).await.status, 401);
}

#[test]
fn debug_output_holds_no_secret() {
    let site = site(false);
    let shown = format!("{:?}", site.files.with_basic_auth("ann", "hunter2"));
    assert!(!shown.contains("hunter2") && !shown.contains("YW5uOmh1bnRlcjI="), "{shown}");
    assert!(shown.contains("redacted"), "{shown}");
}

#[test]
fn only_a_directory_can_be_opened() {
    let site = site(false);
    assert!(Files::open(&site.root.join("digits.txt"), false).is_err());
    let missing = Files::open(Path::new("/nonexistent/adit"), false).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}
