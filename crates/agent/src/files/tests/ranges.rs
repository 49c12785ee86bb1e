//! The byte ranges of RFC 9110 section 14.

use http::Method;

use super::{ask, site};

const WHOLE: (u16, &str, &str) = (200, "", "0123456789");
const BEYOND: (u16, &str, &str) = (416, "bytes */10", "range not satisfiable\n");

/// A Range field, then the status, Content-Range and body that answer it.
const CASES: &[(&str, (u16, &str, &str))] = &[
    ("bytes=0-0", (206, "bytes 0-0/10", "0")),
    ("bytes=2-4", (206, "bytes 2-4/10", "234")),
    ("bytes=0-9", (206, "bytes 0-9/10", "0123456789")),
    ("bytes=0-", (206, "bytes 0-9/10", "0123456789")),
    ("bytes=7-", (206, "bytes 7-9/10", "789")),
    ("bytes=9-9", (206, "bytes 9-9/10", "9")),
    ("bytes=7-99", (206, "bytes 7-9/10", "789")),
    ("bytes=7-99999999999999999999999999", (206, "bytes 7-9/10", "789")),
    ("bytes=-3", (206, "bytes 7-9/10", "789")),
    ("bytes=-10", (206, "bytes 0-9/10", "0123456789")),
    ("bytes=-99", (206, "bytes 0-9/10", "0123456789")),
    ("bytes=-99999999999999999999999999", (206, "bytes 0-9/10", "0123456789")),
    ("Bytes = 2-4", (206, "bytes 2-4/10", "234")),
    ("bytes= 2-4 ,, ", (206, "bytes 2-4/10", "234")),
    // Ranges that overlap or touch are joined, and one that cannot be satisfied is passed over.
    ("bytes=1-3,2-5", (206, "bytes 1-5/10", "12345")),
    ("bytes=4-5,2-3", (206, "bytes 2-5/10", "2345")),
    ("bytes=2-4,99-", (206, "bytes 2-4/10", "234")),
    ("bytes=-0,2-4", (206, "bytes 2-4/10", "234")),
    ("bytes=10-", BEYOND),
    ("bytes=10-20", BEYOND),
    ("bytes=99999999999999999999999999-", BEYOND),
    ("bytes=-0", BEYOND),
    ("bytes=10-,20-", BEYOND),
    // More than the file holds is the file.
    ("bytes=0-,0-", WHOLE),
    ("bytes=0-8,1-9", WHOLE),
    ("bytes=0-0,1-1,2-2,3-3,4-4,5-5,6-6,7-7,8-8,9-9,0-0,1-1,2-2,3-3,4-4,5-5,6-6", WHOLE),
    // What is no list of byte ranges is ignored.
    ("bytes=4-2", WHOLE),
    ("bytes=2-4,4-2", WHOLE),
    ("bytes=", WHOLE),
    ("bytes=,", WHOLE),
    ("bytes", WHOLE),
    ("bytes=-", WHOLE),
    ("bytes=a-b", WHOLE),
    ("bytes=+1-2", WHOLE),
    ("bytes=1-+2", WHOLE),
    ("bytes=1--2", WHOLE),
    ("bytes=--2", WHOLE),
    ("bytes=1 - 2", WHOLE),
    ("bytes=1", WHOLE),
    ("bytes=0x1-2", WHOLE),
    ("lines=1-2", WHOLE),
    ("1-2", WHOLE),
    ("", WHOLE),
];

#[tokio::test]
async fn each_range_selects_what_the_standard_says() {
    let site = site(false);
    for &(range, (code, content_range, body)) in CASES {
        let answer = site.get_with("/digits.txt", &[("range", range)]).await;
        let seen = (answer.status.as_u16(), answer.header("content-range"), answer.text());
        assert_eq!(seen, (code, content_range, body), "{range}");
        assert_eq!(answer.header("content-length"), body.len().to_string(), "{range}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8", "{range}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{range}");
        assert_eq!(answer.headers.contains_key("etag"), code != 416, "{range}");
    }
}

#[tokio::test]
async fn several_ranges_are_sent_as_parts_in_the_order_asked_for() {
    let site = site(false);
    let answer = site.get_with("/digits.txt", &[("range", "bytes=6-7, 0-1, -1")]).await;
    assert_eq!(answer.status, 206);
    assert!(!answer.headers.contains_key("content-range"));
    let boundary = answer.header("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
    let part = |range: &str, content: &str| {
        format!(
            "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes {range}/10\r\n\r\n{content}\r\n"
        )
    };
    let expected =
        [part("6-7", "67"), part("0-1", "01"), part("9-9", "9"), format!("--{boundary}--\r\n")].concat();
    assert_eq!(answer.text(), expected);
    assert_eq!(answer.header("content-length"), expected.len().to_string());
    assert!(boundary.len() <= 70, "RFC 2046 section 5.1.1 bounds it");
    let again = site.get_with("/digits.txt", &[("range", "bytes=6-7, 0-1, -1")]).await;
    assert_ne!(again.header("content-type"), answer.header("content-type"), "a boundary cannot be foreseen");
}

#[tokio::test]
async fn sixteen_ranges_are_parts_and_seventeen_are_the_whole_file() {
    let site = site(false);
    site.write("long.bin", vec![7; 1000]);
    for (count, code) in [(16, 206), (17, 200)] {
        let ranges: Vec<String> =
            (0..count).map(|index| format!("{}-{}", index * 10, index * 10 + 1)).collect();
        let answer = site.get_with("/long.bin", &[("range", &format!("bytes={}", ranges.join(",")))]).await;
        assert_eq!(answer.status, code);
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    }
}

#[tokio::test]
async fn a_repeated_range_field_is_ignored() {
    let answer = site(false).get_with("/digits.txt", &[("range", "bytes=0-1"), ("range", "bytes=0-1")]).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_head_ignores_range() {
    let site = site(false);
    for range in ["bytes=2-4", "bytes=99-", "bytes=0-1,4-5"] {
        let answer = ask(&site.files, Method::HEAD, "/digits.txt", &[("range", range)]).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-length"), "10");
        assert!(!answer.headers.contains_key("content-range"));
    }
}

#[tokio::test]
async fn ranges_of_an_empty_file_are_not_satisfiable_but_suffixes_are_all_of_it() {
    let site = site(false);
    site.write("empty.txt", "");
    for (range, code, content_range) in [
        ("bytes=0-", 416, "bytes */0"),
        ("bytes=0-0", 416, "bytes */0"),
        ("bytes=-0", 416, "bytes */0"),
        ("bytes=-5", 200, ""),
    ] {
        let answer = site.get_with("/empty.txt", &[("range", range)]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-range")),
            (code, content_range),
            "{range}"
        );
    }
}

#[tokio::test]
async fn a_range_across_chunks_is_exact() {
    let site = site(false);
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    site.write("long.bin", &content);
    for (first, last) in
        [(0, 65_535), (0, 65_536), (65_535, 65_536), (100_001, 500_003), (1_199_999, 1_199_999)]
    {
        let answer = site.get_with("/long.bin", &[("range", &format!("bytes={first}-{last}"))]).await;
        assert_eq!(answer.status, 206);
        assert!(answer.body == content[first..=last], "{first}-{last}");
    }
}
