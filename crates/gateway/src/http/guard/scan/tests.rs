//! The scanner against tables of byte strings, against every way to cut them, and against the HTTP library.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;

use super::*;

/// One message as the scanner cut it out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Message {
    head: Vec<u8>,
    body: Vec<u8>,
}

/// What became of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    messages: Vec<Message>,
    withheld: usize,
    refused: Option<Refusal>,
    in_body: bool,
    place: Place,
}

/// Feeds `bytes` cut at `cuts`; upgrades are answered with something else at once when `decline` is set.
fn feed_cut(limits: Limits, bytes: &[u8], cuts: &[usize], decline: bool) -> Outcome {
    let mut scanner = Scanner::new(limits);
    let mut messages: Vec<Message> = Vec::new();
    let mut held: Vec<u8> = Vec::new();
    let mut from = 0;
    let mut refused = None;
    'pieces: for to in cuts.iter().copied().chain([bytes.len()]) {
        held.extend_from_slice(&bytes[from..to]);
        from = to;
        loop {
            if decline {
                scanner.response_done();
            }
            let place = scanner.place();
            match scanner.scan(&held) {
                Verdict::Release(count) => {
                    assert!(count > 0 && count <= held.len());
                    let mut released: Vec<u8> = held.drain(..count).collect();
                    if place == Place::Head {
                        messages.push(Message::default());
                    }
                    let message = messages.last_mut().expect("a release starts with a head");
                    if place == Place::Head {
                        let at = 2 + find(&released, b"\r\n\r\n").expect("a released head has an end") + 2;
                        message.body = released.split_off(at);
                        message.head = released;
                    } else {
                        message.body.extend(released);
                    }
                }
                Verdict::NeedMore => break,
                Verdict::Refuse(refusal) => {
                    assert_eq!(scanner.scan(&held), Verdict::Refuse(refusal), "a refusal stays");
                    refused = Some(refusal);
                    break 'pieces;
                }
            }
        }
    }
    let withheld = if refused.is_some() { 0 } else { held.len() };
    let (in_body, place) = (scanner.refused_in_body(), scanner.place());
    Outcome { messages, withheld, refused, in_body, place }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn feed(bytes: &[u8]) -> Outcome {
    let limits = Limits::default();
    let whole = feed_cut(limits, bytes, &[], false);
    let each: Vec<usize> = (1..bytes.len()).collect();
    assert_eq!(feed_cut(limits, bytes, &each, false), whole, "byte by byte: {}", bytes.escape_ascii());
    whole
}

/// What a row of a table expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// So many whole messages and nothing else.
    Whole(usize),
    /// All is well, but the last message is not complete.
    Part,
    /// 400 at a head.
    Bad,
    /// 400 inside a body.
    BadBody,
    /// Another refusal at a head.
    Other(Reason),
}

use Expect::{Bad, BadBody, Other, Part, Whole};

fn check(bytes: &[u8], expect: Expect) {
    let outcome = feed(bytes);
    let text = bytes.escape_ascii();
    match (expect, outcome.refused) {
        (Whole(count), None) => {
            assert_eq!((outcome.messages.len(), outcome.withheld), (count, 0), "{text}");
            assert!(
                matches!(outcome.place, Place::Head | Place::AwaitUpgrade),
                "{text}: {:?}",
                outcome.place
            );
        }
        (Part, None) => assert!(outcome.withheld > 0 || outcome.place == Place::Body, "{text}"),
        (Bad, Some(refusal)) => {
            assert_eq!((refusal.reason, outcome.in_body), (Reason::BadRequest, false), "{text}");
        }
        (BadBody, Some(refusal)) => {
            assert_eq!((refusal.reason, outcome.in_body), (Reason::BadRequest, true), "{text}");
        }
        (Other(reason), Some(refusal)) => {
            assert_eq!((refusal.reason, outcome.in_body), (reason, false), "{text}");
        }
        (_, refused) => panic!("{text}: expected {expect:?}, got {refused:?}"),
    }
}

#[test]
fn request_lines() {
    let rows: &[(&[u8], Expect)] = &[
        (b"GET / HTTP/1.1", Whole(1)),
        (b"GET / HTTP/1.0", Whole(1)),
        (b"M-SEARCH / HTTP/1.1", Whole(1)),
        (b"get / HTTP/1.1", Whole(1)),
        (b"\r\nGET / HTTP/1.1", Whole(1)),
        (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF / HTTP/1.1", Whole(1)),
        (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1", Bad),
        (b"\r\n\r\nGET / HTTP/1.1", Bad),
        (b"\nGET / HTTP/1.1", Bad),
        (b"\rGET / HTTP/1.1", Bad),
        (b" GET / HTTP/1.1", Bad),
        (b"GET  / HTTP/1.1", Bad),
        (b"GET /  HTTP/1.1", Bad),
        (b"GET / HTTP/1.1 ", Bad),
        (b"GET\t/ HTTP/1.1", Bad),
        (b"GET /\tHTTP/1.1", Bad),
        (b"GET /\x0bHTTP/1.1", Bad),
        (b"GET / HTTP/1.2", Bad),
        (b"GET / HTTP/2.0", Bad),
        (b"GET / HTTP/0.9", Bad),
        (b"GET / HTTP/1.10", Bad),
        (b"GET / http/1.1", Bad),
        (b"GET / HTTP/1,1", Bad),
        (b"GET / HTTPS/1.1", Bad),
        (b"GET /", Bad),
        (b"GET", Bad),
        (b"GET /a b HTTP/1.1", Bad),
        (b"GET HTTP/1.1", Bad),
        (b"/ HTTP/1.1", Bad),
        (b"G@T / HTTP/1.1", Bad),
        (b"G\x00T / HTTP/1.1", Bad),
        (b"G\xc3\xa4T / HTTP/1.1", Bad),
        (b"GET / HTTP/1.1\x00", Bad),
        (b"\x16\x03\x01\x02\x00\x01", Bad),
        (b"PRI * HTTP/2.0", Bad),
        (b"CONNECT example.org:443 HTTP/1.1", Other(Reason::NotImplemented)),
        (b"CONNECT / HTTP/1.1", Other(Reason::NotImplemented)),
    ];
    for (line, expect) in rows {
        check(&[*line, b"\r\nHost: a\r\n\r\n"].concat(), *expect);
    }
}

#[test]
fn targets() {
    let rows: &[(&[u8], Expect)] = &[
        (b"/", Whole(1)),
        (b"//evil/path", Whole(1)),
        (b"/a/../b;c=d,e/%2e%2F?q=a/b?c", Whole(1)),
        (b"/back\\slash", Whole(1)),
        (b"/json{\"a\":[1|2]}^", Whole(1)),
        (b"/?q={}`^|\\", Whole(1)),
        (b"/?a@b:c", Whole(1)),
        (b"/%zz", Whole(1)),
        (b"http://a/", Whole(1)),
        (b"http://a", Whole(1)),
        (b"HTTP://A:80/x?y", Whole(1)),
        (b"https://a:443/", Whole(1)),
        (b"/a#b", Bad),
        (b"/?a#b", Bad),
        (b"/<script>", Bad),
        (b"/a`b", Bad),
        (b"/?a\"b", Bad),
        (b"/?a<b", Bad),
        (b"/\x7f", Bad),
        (b"/\x00", Bad),
        (b"/\xff", Bad),
        (b"/caf\xc3\xa9", Bad),
        (b"*", Bad),
        (b"a", Bad),
        (b"a/b", Bad),
        (b"?q", Bad),
        (b"a:80", Bad),
        (b"ftp://a/", Bad),
        (b"http:/a", Bad),
        (b"http:///", Bad),
        (b"http://", Bad),
        (b"http://u@a/", Bad),
        (b"http://u:p@a/", Bad),
        (b"http://a?q", Bad),
        (b"http://a:99999/", Bad),
        (b"http://a:x/", Bad),
        (b"http://a\\b/", Bad),
        (b"http://b/", Bad),
        (b"http://a:81/", Bad),
        (b"http://a/#f", Bad),
    ];
    for (target, expect) in rows {
        check(&[b"GET ", *target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat(), *expect);
    }
    check(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Whole(1));
    check(b"OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", Bad);
    check(b"GET http://a:80/ HTTP/1.1\r\nHost: A\r\n\r\n", Whole(1));
    check(b"GET https://a/ HTTP/1.1\r\nHost: a:443\r\n\r\n", Whole(1));
    check(b"GET https://a/ HTTP/1.1\r\nHost: a:80\r\n\r\n", Bad);
    check(b"GET http://a/ HTTP/1.0\r\n\r\n", Whole(1));
    check(b"GET http://a/ HTTP/1.0\r\nHost: b\r\n\r\n", Bad);
}

#[test]
fn fields() {
    let rows: &[(&[u8], Expect)] = &[
        (b"A: b", Whole(1)),
        (b"A:b", Whole(1)),
        (b"A:", Whole(1)),
        (b"A: \t b\tc \t", Whole(1)),
        (b"!#$%&'*+-.^_`|~09az: x", Whole(1)),
        (b"a_b: c", Whole(1)),
        (b"A: caf\xc3\xa9 \xff", Whole(1)),
        (b"A: b: c", Whole(1)),
        (b"A : b", Bad),
        (b"A\t: b", Bad),
        (b" A: b", Bad),
        (b"A: b\r\n c", Bad),
        (b"A: b\r\n\tc", Bad),
        (b"A: b\r\n ", Bad),
        (b": b", Bad),
        (b"A", Bad),
        (b"A b: c", Bad),
        (b"A(: c", Bad),
        (b"\xc3\xa4: c", Bad),
        (b"A: b\x00c", Bad),
        (b"A\x00: b", Bad),
        (b"A: b\x01", Bad),
        (b"A: b\x7f", Bad),
        (b"A: b\nC: d", Bad),
        (b"A: b\rC: d", Bad),
        (b"A: b\r\r\nC: d", Bad),
        (b"A: b\n", Bad),
        (b"Host: a", Bad),
        (b"host: b", Bad),
        (b"Connection: upgrade", Whole(1)),
        (b"Expect: 100-continue", Whole(1)),
    ];
    for (line, expect) in rows {
        check(&[b"GET / HTTP/1.1\r\nHost: a\r\n", *line, b"\r\n\r\n"].concat(), *expect);
    }
    check(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", Bad);
    check(b"GET / HTTP/1.1\r\nHost: a\r\n\n", Bad);
    check(b"GET / HTTP/1.1\nHost: a\n\n", Bad);
    check(b"GET / HTTP/1.1\r\nHost: a\r\n\rX", Bad);
    check(b"GET / HTTP/1.1\r\nHost: a\r\n", Part);
    check(b"GET / HTTP/1.1\r\nHost: a\r\n\r", Part);
    check(b"GET", Part);
    check(b"\r\n", Part);
    check(b"", Whole(0));
}

#[test]
fn hosts() {
    let rows: &[(&[u8], Expect)] = &[
        (b"example.org", Whole(1)),
        (b"EXAMPLE.org:8080", Whole(1)),
        (b"a.", Whole(1)),
        (b"a_b-c~d", Whole(1)),
        (b"127.0.0.1:1", Whole(1)),
        (b"a:0", Whole(1)),
        (b"a:65535", Whole(1)),
        (b"[::1]", Whole(1)),
        (b"[2001:DB8::1]:443", Whole(1)),
        (b"[::ffff:1.2.3.4]", Whole(1)),
        (b"  a  ", Whole(1)),
        (b"", Bad),
        (b" ", Bad),
        (b":80", Bad),
        (b"a:", Bad),
        (b"a:65536", Bad),
        (b"a:-1", Bad),
        (b"a:80:80", Bad),
        (b"a:8o", Bad),
        (b"a b", Bad),
        (b"a,b", Bad),
        (b"a/b", Bad),
        (b"a?b", Bad),
        (b"a#b", Bad),
        (b"a\\b", Bad),
        (b"u@a", Bad),
        (b"a%2eb", Bad),
        (b"http://a", Bad),
        (b"[::1", Bad),
        (b"::1", Bad),
        (b"[]", Bad),
        (b"[::1]x", Bad),
        (b"[::1%25eth0]", Bad),
        (b"[v1.a]", Bad),
        (b"\xe4", Bad),
        (b"\"a\"", Bad),
        (b"<a>", Bad),
    ];
    for (host, expect) in rows {
        check(&[b"GET / HTTP/1.1\r\nHost: ", *host, b"\r\n\r\n"].concat(), *expect);
    }
    check(b"GET / HTTP/1.1\r\n\r\n", Bad);
    check(b"GET / HTTP/1.0\r\n\r\n", Whole(1));
    check(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Bad);
}

#[test]
fn framing_fields() {
    let unknown = Other(Reason::NotImplemented);
    let rows: &[(&[u8], Expect)] = &[
        (b"Content-Length: 0", Whole(1)),
        (b"content-length:00", Whole(1)),
        (b"Content-Length: 5", Part),
        (b"Content-Length: 9223372036854775807", Part),
        (b"Content-Length: 9223372036854775808", Bad),
        (b"Content-Length: 99999999999999999999", Bad),
        (b"Content-Length:", Bad),
        (b"Content-Length: +5", Bad),
        (b"Content-Length: -5", Bad),
        (b"Content-Length: 5 5", Bad),
        (b"Content-Length: 5,5", Bad),
        (b"Content-Length: 5, 6", Bad),
        (b"Content-Length: 0x5", Bad),
        (b"Content-Length: 5;a", Bad),
        (b"Content-Length: \x0b5", Bad),
        (b"Content-Length: 5\r\nContent-Length: 5", Bad),
        (b"Content-Length: 5\r\nContent-Length: 6", Bad),
        (b"Content-Length: 0\r\ncontent-length: 0", Bad),
        (b"Content-Length : 5", Bad),
        (b"Content-Length: 5\r\n ", Bad),
        (b"Transfer-Encoding: chunked", Part),
        (b"transfer-encoding:CHUNKED \t", Part),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5", Bad),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked", Bad),
        (b"Content-Length: 0\r\nTransfer-Encoding: chunked", Bad),
        (b"Transfer-Encoding: gzip, chunked\r\nContent-Length: 5", Bad),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Bad),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", Bad),
        (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", Bad),
        (b"Transfer-Encoding: chunked, chunked", Bad),
        (b"Transfer-Encoding: chunked, identity", Bad),
        (b"Transfer-Encoding: identity", Bad),
        (b"Transfer-Encoding: gzip", Bad),
        (b"Transfer-Encoding:", Bad),
        (b"Transfer-Encoding: ,chunked", Bad),
        (b"Transfer-Encoding: chunked,", Bad),
        (b"Transfer-Encoding: xchunked", Bad),
        (b"Transfer-Encoding: chunkedx", Bad),
        (b"Transfer-Encoding: \"chunked\"", Bad),
        (b"Transfer-Encoding: chunked;a=b", Bad),
        (b"Transfer-Encoding: a b, chunked", Bad),
        (b"Transfer-Encoding: \x0bchunked", Bad),
        (b"Transfer-Encoding : chunked", Bad),
        (b" Transfer-Encoding: chunked", Bad),
        (b"Transfer-Encoding: gzip, chunked", unknown),
        (b"Transfer-Encoding: gzip ,\tChunked", unknown),
        (b"Transfer_Encoding: chunked", Whole(1)),
    ];
    for (line, expect) in rows {
        check(&[b"POST / HTTP/1.1\r\nHost: a\r\n", *line, b"\r\n\r\n"].concat(), *expect);
    }
    check(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Bad);
    check(b"POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nx", Whole(1));
}

#[test]
fn chunked_bodies() {
    let rows: &[(&[u8], Expect)] = &[
        (b"0\r\n\r\n", Whole(1)),
        (b"000\r\n\r\n", Whole(1)),
        (b"5\r\nhello\r\n0\r\n\r\n", Whole(1)),
        (b"A\r\n0123456789\r\n0\r\n\r\n", Whole(1)),
        (b"a\r\n0123456789\r\n0\r\n\r\n", Whole(1)),
        (b"0000000000000001\r\nx\r\n0\r\n\r\n", Whole(1)),
        (b"1;a\r\nx\r\n0;b=c\r\n\r\n", Whole(1)),
        (b"1;a=\"b;\\\"c\" ; d\r\nx\r\n0\r\n\r\n", Whole(1)),
        (b"1 ;a = b\r\nx\r\n0\r\n\r\n", Whole(1)),
        (b"0\r\nA: b\r\nC:\r\n\r\n", Whole(1)),
        (b"1\r\n\r\r\n0\r\n\r\n", Whole(1)),
        (b"1\r\n\n\r\n0\r\n\r\n", Whole(1)),
        (b"5\r\nhel", Part),
        (b"5\r\nhello\r", Part),
        (b"5", Part),
        (b"0\r\n", Part),
        (b"0\r\n\r", Part),
        (b"7fffffffffffffff\r\nx", Part),
        (b"8000000000000000\r\nx", BadBody),
        (b"ffffffffffffffff\r\nx", BadBody),
        (b"00000000000000001\r\nx\r\n0\r\n\r\n", BadBody),
        (b"\r\n", BadBody),
        (b"x\r\n", BadBody),
        (b"0x1\r\nx\r\n0\r\n\r\n", BadBody),
        (b"-1\r\n", BadBody),
        (b"+1\r\nx\r\n0\r\n\r\n", BadBody),
        (b" 1\r\nx\r\n0\r\n\r\n", BadBody),
        (b"1 \r\nx\r\n0\r\n\r\n", BadBody),
        (b"1\t\r\nx\r\n0\r\n\r\n", BadBody),
        (b"1 1\r\nx\r\n0\r\n\r\n", BadBody),
        (b"1_0\r\n", BadBody),
        (b"1\nx\r\n0\r\n\r\n", BadBody),
        (b"1\rx\r\n0\r\n\r\n", BadBody),
        (b"1\r\nx\n0\r\n\r\n", BadBody),
        (b"1\r\nx0\r\n\r\n", BadBody),
        (b"1\r\nxx\r\n0\r\n\r\n", BadBody),
        (b"1\r\nx\r0\r\n\r\n", BadBody),
        (b"2\r\nx\r\n0\r\n\r\n", BadBody),
        (b"1;\r\nx\r\n0\r\n\r\n", BadBody),
        (b"1;a=\r\nx\r\n0\r\n\r\n", BadBody),
        (b"1;a=\"b\r\nx\r\n0\r\n\r\n", BadBody),
        (b"1;a=b c\r\nx\r\n0\r\n\r\n", BadBody),
        (b"1;a b\r\nx\r\n0\r\n\r\n", BadBody),
        (b"1;a\nx\r\n0\r\n\r\n", BadBody),
        (b"1;a\x00\r\nx\r\n0\r\n\r\n", BadBody),
        (b"1;a\rb\r\nx\r\n0\r\n\r\n", BadBody),
        (b"0\n\n", BadBody),
        (b"0\r\n\n", BadBody),
        (b"0\r\nA : b\r\n\r\n", BadBody),
        (b"0\r\nA: b\n\r\n", BadBody),
        (b"0\r\nA: b\r\n c\r\n\r\n", BadBody),
        (b"0\r\nA: \x00\r\n\r\n", BadBody),
        (b"0\r\nA\r\n\r\n", BadBody),
        (b"0\r\nContent-Length: 5\r\n\r\n", BadBody),
        (b"0\r\ntransfer-encoding: chunked\r\n\r\n", BadBody),
        (b"0\r\nHOST: b\r\n\r\n", BadBody),
        (b"0\r\nAuthorization: x\r\n\r\n", BadBody),
        (b"0\r\nGET / HTTP/1.1\r\n\r\n", BadBody),
    ];
    for (body, expect) in rows {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&[head, *body].concat(), *expect);
    }
}

#[test]
fn messages_behind_each_other() {
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".as_slice();
    let fixed = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".as_slice();
    let chunked =
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n".as_slice();
    check(&[get, get, fixed, chunked, get].concat(), Whole(5));
    check(&[fixed, b"\r\n", fixed].concat(), Whole(2));
    check(&[fixed, b"x", get].concat(), Whole(2));
    check(&[fixed, b"\r\n\r\n", get].concat(), Bad);
    check(&[chunked, b"0\r\n\r\n", get].concat(), Bad);
    check(
        &[get, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"]
            .concat(),
        Bad,
    );
    let outcome = feed(&[get, get, b"bad\r\n"].concat());
    assert_eq!(outcome.messages.len(), 2);
}

const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn bytes_behind_an_upgrade_wait_for_its_answer() {
    let behind = b"\x81\x05hello".as_slice();
    let mut scanner = Scanner::new(Limits::default());
    let stream = [UPGRADE, behind].concat();
    assert_eq!(scanner.scan(&stream), Verdict::Release(UPGRADE.len()));
    assert_eq!(scanner.place(), Place::AwaitUpgrade);
    assert_eq!(scanner.scan(behind), Verdict::NeedMore);
    scanner.upgraded();
    assert_eq!(scanner.scan(behind), Verdict::Release(behind.len()));
    assert_eq!(scanner.scan(b""), Verdict::NeedMore);

    let mut scanner = Scanner::new(Limits::default());
    assert_eq!(scanner.scan(&stream), Verdict::Release(UPGRADE.len()));
    scanner.response_done();
    assert!(matches!(scanner.scan(behind), Verdict::Refuse(_)), "without a 101 it is HTTP");
}

#[test]
fn only_a_whole_offer_to_upgrade_is_one() {
    let rows: &[(&[u8], Place)] = &[
        (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", Place::Head),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n", Place::Head),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade:\r\n\r\n", Place::Head),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrades\r\nUpgrade: x\r\n\r\n", Place::Head),
        (b"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", Place::Head),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: a\r\nConnection: UPGRADE\r\n\r\n",
            Place::AwaitUpgrade,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\nContent-Length: 1\r\n\r\nx",
            Place::AwaitUpgrade,
        ),
    ];
    for (bytes, place) in rows {
        let mut scanner = Scanner::new(Limits::default());
        assert_eq!(scanner.scan(bytes), Verdict::Release(bytes.len()));
        assert_eq!(scanner.place(), *place, "{}", bytes.escape_ascii());
        scanner.upgraded();
        assert_eq!(scanner.place() == Place::Upgraded, *place == Place::AwaitUpgrade);
    }
}

#[test]
fn limits_hold_to_the_byte() {
    let head = |target: usize| {
        [b"GET /", vec![b'a'; target - 1].as_slice(), b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat()
    };
    check(&head(16 * 1024), Whole(1));
    check(&head(16 * 1024 + 1), Other(Reason::TargetTooLong));
    check(&head(100_000), Other(Reason::TargetTooLong));
    check(&head(100_000)[..50_000], Other(Reason::TargetTooLong));
    check(&vec![b'A'; 20_000], Bad);

    let fields =
        |count: usize| ["GET / HTTP/1.1\r\nHost: a\r\n", &"A: b\r\n".repeat(count - 1), "\r\n"].concat();
    check(fields(100).as_bytes(), Whole(1));
    check(fields(101).as_bytes(), Other(Reason::HeadersTooLarge));

    let sized = |size: usize| {
        let frame = "GET / HTTP/1.1\r\nHost: a\r\nA: \r\n\r\n";
        frame.replace("A: ", &format!("A: {}", "b".repeat(size - frame.len())))
    };
    check(sized(64 * 1024).as_bytes(), Whole(1));
    check(sized(64 * 1024 + 1).as_bytes(), Other(Reason::HeadersTooLarge));
    check(&sized(100_000).as_bytes()[..70_000], Other(Reason::HeadersTooLarge));

    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let extended = |length: usize, lines: usize| {
        [chunked, &format!("1;{}\r\nx\r\n", "a".repeat(length)).repeat(lines), "0\r\n\r\n"].concat()
    };
    check(extended(4092, 1).as_bytes(), Whole(1));
    check(extended(4093, 1).as_bytes(), BadBody);
    check(extended(1023, 16).as_bytes(), Whole(1));
    check(extended(1023, 17).as_bytes(), BadBody);
    let trailers = [chunked, "0\r\n", &"A: b\r\n".repeat(101), "\r\n"].concat();
    let outcome = feed(trailers.as_bytes());
    assert_eq!(outcome.refused.map(|refusal| refusal.reason), Some(Reason::HeadersTooLarge));
    assert!(outcome.in_body);
}

#[test]
fn a_head_that_drips_is_read_once() {
    // A head of 60 000 bytes in single bytes: quadratic reading would take a minute here.
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "b".repeat(60_000));
    let mut scanner = Scanner::new(Limits::default());
    for end in 1..head.len() {
        assert_eq!(scanner.scan(&head.as_bytes()[..end]), Verdict::NeedMore);
    }
    assert_eq!(scanner.scan(head.as_bytes()), Verdict::Release(head.len()));
}

#[test]
fn controls_are_found_at_every_place_of_a_word() {
    for control in (0..=255_u8).filter(|byte| byte.is_ascii_control() && *byte != b'\t') {
        for at in 0..40 {
            for filler in [b'a', b'\t', 0x20, 0x80, 0xff, 0x7e] {
                let mut line = vec![filler; 40];
                assert_eq!(syntax::line_run(&line), 40);
                line[at] = control;
                assert_eq!(syntax::line_run(&line), at, "{control:#x} behind {filler:#x}");
            }
        }
    }
}

/// Pieces that are likely to lie at an edge of the grammar.
const PIECES: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /x?y HTTP/1.1\r\n",
    "GET http://a/p HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "PUT / HTTP/1.0\r\n",
    "Host: a\r\n",
    "Host: b:1\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Upgrade: x\r\n",
    "Connection: upgrade\r\n",
    "X: y\r\n",
    "X_Y: \t z \r\n",
    "X:\r\n",
    " folded\r\n",
    "Expect: 100-continue\r\n",
    "\r\n",
    "\r\n\r\n",
    "abc",
    "3\r\nabc\r\n",
    "1;a=b\r\nx\r\n",
    "0\r\n\r\n",
    "0\r\nT: u\r\n\r\n",
    "\r",
    "\n",
    " ",
    "\t",
    ":",
    "\0",
    "é",
    "0",
    "a",
    "/",
    "\\",
    "{}",
    "%",
    "#",
    "|",
];

/// Streams of which about half are served, because random bytes never pass the request line.
pub(in crate::http::guard) fn streams() -> impl Strategy<Value = Vec<u8>> {
    let head = "(GET|POST|OPTIONS|x) (/|/[!-~]{0,9}|http://a(:80)?(/[!-~]{0,5})?|\\*) HTTP/1\\.[01]\r\n";
    let field = prop_oneof![
        4 => "[A-Za-z_-]{1,8}:[ \t]{0,2}[ -~]{0,9}\r\n",
        1 => proptest::sample::select(PIECES).prop_map(str::to_owned),
    ];
    let body = prop_oneof![
        3 => Just("\r\n".to_owned()),
        2 => "[ -~]{0,9}".prop_map(|body| format!("Content-Length: {}\r\n\r\n{body}", body.len())),
        2 => proptest::collection::vec("[ -~]{1,20}", 0..4).prop_map(|chunks| {
            let chunks: String = chunks.iter().map(|c| format!("{:x};e=\"f\"\r\n{c}\r\n", c.len())).collect();
            format!("Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\nT: u\r\n\r\n")
        }),
        1 => proptest::sample::select(PIECES).prop_map(str::to_owned),
    ];
    let message = (head, proptest::collection::vec(field, 0..3), body)
        .prop_map(|(head, fields, body)| [head, "Host: a\r\n".to_owned(), fields.concat(), body].concat());
    let soup =
        proptest::collection::vec(proptest::sample::select(PIECES), 0..12).prop_map(|soup| soup.concat());
    let stream = prop_oneof![
        6 => proptest::collection::vec(message, 1..4).prop_map(|messages| messages.concat()),
        1 => soup,
    ];
    let stream = stream.prop_map(String::into_bytes);
    prop_oneof![
        2 => stream.clone(),
        1 => (stream, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut stream, at, byte)| {
            if !stream.is_empty() {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
            stream
        }),
        1 => proptest::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_verdict_does_not_depend_on_the_cuts(
        stream in streams(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        small in any::<bool>(),
    ) {
        // Limits that streams of this size reach.
        let limits = if small {
            Limits { max_headers: 2, max_header_bytes: 60, max_target: 8 }
        } else {
            Limits::default()
        };
        let whole = feed_cut(limits, &stream, &[], true);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(&feed_cut(limits, &stream, &cuts, true), &whole);
        let each: Vec<usize> = (0..stream.len()).collect();
        prop_assert_eq!(&feed_cut(limits, &stream, &each, true), &whole);
    }

    #[test]
    fn the_http_library_reads_what_is_released_in_the_same_way(stream in streams()) {
        let outcome = feed_cut(Limits::default(), &stream, &[], true);
        let released = released(&stream);
        let seen = read_by_the_library(&released);
        let complete = outcome.messages.len() - usize::from(!outcome.messages.is_empty() && !outcome.place_is_between());
        let mut open = true;
        for (index, message) in outcome.messages.iter().enumerate() {
            if !open {
                break;
            }
            let head = String::from_utf8_lossy(&message.head).into_owned();
            let Some(request) = seen.get(index) else {
                prop_assert!(false, "not served: {:?} of {:?}", head, String::from_utf8_lossy(&stream));
                continue;
            };
            let line = head.trim_start_matches("\r\n").lines().next().unwrap_or_default();
            let target = line.split(' ').nth(1).unwrap_or_default();
            if target.starts_with(['/', '*']) {
                prop_assert_eq!(&request.0, target);
            }
            if index < complete {
                prop_assert_eq!(request.1.clone(), Some(payload(message)));
            }
            let lower = head.to_ascii_lowercase();
            open = line.ends_with("1.1") && !lower.contains("connection:") && index < complete;
        }
        prop_assert!(seen.len() <= outcome.messages.len());
    }
}

/// What the scanner releases of a stream whose upgrades are all declined.
pub(in crate::http::guard) fn released(stream: &[u8]) -> Vec<u8> {
    let outcome = feed_cut(Limits::default(), stream, &[], true);
    outcome.messages.iter().flat_map(|m| [m.head.clone(), m.body.clone()]).flatten().collect()
}

impl Outcome {
    /// Whether the last message is complete.
    fn place_is_between(&self) -> bool {
        match self.place {
            Place::Refused => !self.in_body,
            Place::Head | Place::AwaitUpgrade => true,
            Place::Body | Place::Upgraded => false,
        }
    }
}

/// The content of a complete message, with the simplest reading of chunks.
fn payload(message: &Message) -> Vec<u8> {
    let head = String::from_utf8_lossy(&message.head).to_ascii_lowercase();
    if !head.contains("\r\ntransfer-encoding:") {
        return message.body.clone();
    }
    let mut rest = message.body.as_slice();
    let mut payload = Vec::new();
    loop {
        let end = find(rest, b"\r\n").expect("a size line ends");
        let line = String::from_utf8_lossy(&rest[..end]);
        let digits = line.split([';', ' ', '\t']).next().unwrap_or_default();
        let size = usize::from_str_radix(digits, 16).expect("a size is a number");
        if size == 0 {
            return payload;
        }
        payload.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
}

type Seen = (String, Option<Vec<u8>>);

/// What the service behind the HTTP library is called with: targets, and bodies where they are complete.
fn read_by_the_library(bytes: &[u8]) -> Vec<Seen> {
    let seen = Arc::new(Mutex::new(Vec::<Seen>::new()));
    let calls = Arc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        let calls = Arc::clone(&calls);
        async move {
            let index = {
                let mut calls = calls.lock();
                calls.push((request.uri().to_string(), None));
                calls.len() - 1
            };
            if let Ok(body) = request.into_body().collect().await {
                calls.lock()[index].1 = Some(body.to_bytes().to_vec());
            }
            Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(bytes).await.unwrap();
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
        drop(tokio::time::timeout(Duration::from_millis(1), connection).await);
    });
    std::mem::take(&mut *seen.lock())
}
