//! What reading and writing the wire format costs: `cargo bench -p adit-proto`.

use std::hint::black_box;
use std::time::Duration;

use adit_proto::frame::{FrameHeader, HEADER_LEN, Kind, put};
use adit_proto::header::StreamHeader;
use adit_proto::names::{HostPattern, Hostname};
use bytes::{Bytes, BytesMut};
use divan::{Bencher, counter::BytesCount};

fn main() {
    divan::main();
}

/// A whole frame into a buffer that is there, as a round of many streams does it.
#[divan::bench(args = [64, 1024, 16 << 10, 64 << 10])]
fn put_data(bencher: Bencher<'_, '_>, len: usize) {
    let payload = vec![7; len];
    let mut out = BytesMut::with_capacity(HEADER_LEN + len);
    bencher.counter(BytesCount::new(len)).bench_local(|| {
        out.clear();
        put(&mut out, Kind::Data, 9, black_box(&payload));
    });
}

#[divan::bench]
fn decode_frame_header(bencher: Bencher<'_, '_>) {
    let mut out = BytesMut::new();
    put(&mut out, Kind::Data, 9, &[0; 1024]);
    let raw = std::array::from_fn::<u8, HEADER_LEN, _>(|at| out[at]);
    bencher.bench(|| FrameHeader::decode(black_box(raw)));
}

fn stream_header() -> StreamHeader {
    StreamHeader {
        service: "prometheus.example.com".parse().expect("a host is a service"),
        client_addr: Some(([192, 0, 2, 1], 40_000).into()),
        connect_timeout: Duration::from_secs(10),
    }
}

#[divan::bench]
fn encode_stream_header(bencher: Bencher<'_, '_>) {
    let header = stream_header();
    let mut out = BytesMut::with_capacity(256);
    bencher.bench_local(|| {
        out.clear();
        black_box(&header).encode(&mut out);
    });
}

#[divan::bench]
fn decode_stream_header(bencher: Bencher<'_, '_>) {
    let mut out = BytesMut::new();
    stream_header().encode(&mut out);
    let payload: Bytes = out.freeze();
    bencher.bench(|| StreamHeader::decode(black_box(payload.clone())));
}

/// What the router does first with every Host header.
#[divan::bench(args = ["example.com", "a-longer-name.with.some.more.labels.example.com"])]
fn parse_host(host: &str) -> Result<Hostname, adit_proto::names::NameError> {
    black_box(host).parse()
}

#[divan::bench]
fn match_host(bencher: Bencher<'_, '_>) {
    let pattern: HostPattern = "*.example.com".parse().expect("a pattern");
    let host: Hostname = "prometheus.example.com".parse().expect("a host");
    bencher.bench(|| black_box(&pattern).matches(black_box(&host)));
}
