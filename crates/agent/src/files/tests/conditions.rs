//! The preconditions of RFC 9110 section 13.

use std::fs::File;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;

use super::{Site, ask, site};

const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const EXACT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

fn set_modified(site: &Site, time: SystemTime) {
    let file = File::options().write(true).open(site.root.join("digits.txt")).unwrap();
    file.set_modified(time).unwrap();
}

/// A site whose file was modified within the second that `EXACT` names.
fn dated() -> Site {
    let site = site(false);
    set_modified(&site, UNIX_EPOCH + Duration::from_millis(784_111_777_500));
    site
}

#[tokio::test]
async fn each_precondition_decides_as_the_standard_says() {
    let site = dated();
    let tag = site.get("/digits.txt").await.header("etag").to_owned();
    let weak = format!("W/{tag}");
    let list = format!("\"a,b\", W/\"c\" ,, {tag}");
    let weak_list = format!("\"x\",{weak}");
    let tailed = format!("{tag}, *");
    let cases: &[(&[(&str, &str)], u16)] = &[
        (&[("if-none-match", &tag)], 304),
        (&[("if-none-match", &weak)], 304),
        (&[("if-none-match", &list)], 304),
        (&[("if-none-match", &weak_list)], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", " * ")], 304),
        (&[("if-none-match", "\"other\"")], 200),
        (&[("if-none-match", tag.trim_matches('"'))], 200),
        (&[("if-none-match", "\"unfinished")], 200),
        (&[("if-none-match", "")], 200),
        (&[("if-none-match", "\"one\""), ("if-none-match", &tag)], 304),
        (&[("if-modified-since", EXACT)], 304),
        (&[("if-modified-since", AFTER)], 304),
        (&[("if-modified-since", BEFORE)], 200),
        (&[("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")], 304),
        (&[("if-modified-since", "Sun Nov  6 08:49:37 1994")], 304),
        (&[("if-modified-since", "yesterday")], 200),
        (&[("if-modified-since", AFTER), ("if-modified-since", AFTER)], 200),
        (&[("if-match", &tag)], 200),
        (&[("if-match", &list)], 200),
        (&[("if-match", "*")], 200),
        (&[("if-match", &tailed)], 200),
        (&[("if-match", &weak)], 412),
        (&[("if-match", "\"other\"")], 412),
        (&[("if-match", "")], 412),
        (&[("if-unmodified-since", EXACT)], 200),
        (&[("if-unmodified-since", AFTER)], 200),
        (&[("if-unmodified-since", BEFORE)], 412),
        (&[("if-unmodified-since", "never")], 200),
    ];
    for (headers, code) in cases {
        for method in [Method::GET, Method::HEAD] {
            let answer = ask(&site.files, method, "/digits.txt", headers).await;
            assert_eq!(answer.status, *code, "{headers:?}");
        }
    }
}

#[tokio::test]
async fn preconditions_are_evaluated_in_their_order() {
    let site = dated();
    let tag = site.get("/digits.txt").await.header("etag").to_owned();
    let cases: &[(&[(&str, &str)], u16)] = &[
        // If-Match silences If-Unmodified-Since, and If-None-Match silences If-Modified-Since.
        (&[("if-match", &tag), ("if-unmodified-since", BEFORE)], 200),
        (&[("if-match", "\"other\""), ("if-unmodified-since", AFTER)], 412),
        (&[("if-none-match", "\"other\""), ("if-modified-since", AFTER)], 200),
        (&[("if-none-match", &tag), ("if-modified-since", BEFORE)], 304),
        // A failure comes before a match that would save the transfer.
        (&[("if-match", "\"other\""), ("if-none-match", &tag)], 412),
        (&[("if-unmodified-since", BEFORE), ("if-modified-since", AFTER)], 412),
        (&[("if-match", &tag), ("if-none-match", &tag)], 304),
        (&[("if-unmodified-since", AFTER), ("if-none-match", &tag)], 304),
        // And every precondition comes before Range.
        (&[("if-none-match", &tag), ("range", "bytes=0-1")], 304),
        (&[("if-match", "\"other\""), ("range", "bytes=99-")], 412),
        (&[("if-match", &tag), ("range", "bytes=0-1")], 206),
    ];
    for (headers, code) in cases {
        assert_eq!(site.get_with("/digits.txt", headers).await.status, *code, "{headers:?}");
    }
}

#[tokio::test]
async fn not_modified_carries_the_validators_and_no_body() {
    let site = dated();
    let whole = site.get("/digits.txt").await;
    let answer = site.get_with("/digits.txt", &[("if-none-match", "*")]).await;
    assert_eq!(answer.header("etag"), whole.header("etag"));
    assert_eq!(answer.header("last-modified"), EXACT);
    assert!(answer.body.is_empty());
    assert!(!answer.headers.contains_key("content-length") && !answer.headers.contains_key("content-type"));
}

#[tokio::test]
async fn a_failed_precondition_is_plain_text() {
    let answer = site(false).get_with("/digits.txt", &[("if-match", "\"other\"")]).await;
    assert_eq!(answer.text(), "precondition failed\n");
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn preconditions_do_not_matter_where_nothing_is_found() {
    for header in ["if-match", "if-none-match"] {
        site(false).get_with("/missing", &[(header, "*")]).await.assert_not_found(header);
    }
}

#[tokio::test]
async fn if_range_takes_a_strong_tag_or_the_exact_date() {
    let site = dated();
    let tag = site.get("/digits.txt").await.header("etag").to_owned();
    let weak = format!("W/{tag}");
    let cases = [
        (tag.as_str(), 206),
        (EXACT, 206),
        ("Sun Nov  6 08:49:37 1994", 206),
        (&weak, 200),
        ("\"other\"", 200),
        (BEFORE, 200),
        (AFTER, 200),
        ("*", 200),
        ("", 200),
    ];
    for (field, code) in cases {
        let answer = site.get_with("/digits.txt", &[("range", "bytes=2-4"), ("if-range", field)]).await;
        assert_eq!(answer.status, code, "{field}");
        assert_eq!(answer.text(), if code == 206 { "234" } else { "0123456789" }, "{field}");
        let beyond = site.get_with("/digits.txt", &[("range", "bytes=99-"), ("if-range", field)]).await;
        assert_eq!(beyond.status, if code == 206 { 416 } else { 200 }, "{field}");
        let alone = site.get_with("/digits.txt", &[("if-range", field)]).await;
        assert_eq!(alone.status, 200, "{field}");
    }
}

#[tokio::test]
async fn the_tag_changes_with_the_file() {
    let site = dated();
    let mut tags = vec![site.get("/digits.txt").await.header("etag").to_owned()];
    assert_eq!(site.get("/digits.txt").await.header("etag"), tags[0]);
    // Another nanosecond, another length, and another inode with the same length and time.
    set_modified(&site, UNIX_EPOCH + Duration::from_nanos(784_111_777_500_000_100));
    tags.push(site.get("/digits.txt").await.header("etag").to_owned());
    site.write("digits.txt", "012345678");
    set_modified(&site, UNIX_EPOCH + Duration::from_millis(784_111_777_500));
    tags.push(site.get("/digits.txt").await.header("etag").to_owned());
    site.write("next.txt", "0123456789");
    std::fs::rename(site.root.join("next.txt"), site.root.join("digits.txt")).unwrap();
    set_modified(&site, UNIX_EPOCH + Duration::from_millis(784_111_777_500));
    tags.push(site.get("/digits.txt").await.header("etag").to_owned());
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), if cfg!(unix) { 4 } else { 3 });
}

#[tokio::test]
async fn a_time_that_is_yet_to_come_is_not_sent() {
    let site = site(false);
    set_modified(&site, SystemTime::now() + Duration::from_secs(86_400));
    let sent = site.get("/digits.txt").await.header("last-modified").to_owned();
    assert!(httpdate::parse_http_date(&sent).unwrap() <= SystemTime::now());
    let answer = site.get_with("/digits.txt", &[("if-modified-since", &sent)]).await;
    assert_eq!(answer.status, 200, "a file from the future counts as modified");
}

#[tokio::test]
async fn a_time_that_no_date_can_say_is_left_out() {
    let site = site(true);
    set_modified(&site, UNIX_EPOCH - Duration::from_secs(10));
    for headers in [&[][..], &[("if-modified-since", AFTER)], &[("if-unmodified-since", BEFORE)]] {
        let answer = site.get_with("/digits.txt", headers).await;
        assert_eq!(answer.status, 200, "{headers:?}");
        assert!(!answer.headers.contains_key("last-modified"));
        assert!(answer.headers.contains_key("etag"));
    }
    assert_eq!(site.get("/").await.status, 200);
}
