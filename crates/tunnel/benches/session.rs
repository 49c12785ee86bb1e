//! What the multiplexer and the pump cost without sockets and TLS, two sessions over a pipe in memory:
//! `cargo bench -p adit-tunnel`.

use std::future::Future;
use std::time::Duration;

use adit_proto::header::StreamHeader;
use adit_proto::reason::Reason;
use adit_tunnel::relay::{Meter, Terms, relay};
use adit_tunnel::scope::Scope;
use adit_tunnel::session::{Session, Side};
use adit_tunnel::stream::Stream;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Builder, Runtime};

fn main() {
    divan::main();
}

const MIB: usize = 1 << 20;

/// Two sessions that are each other's peer, on one thread.
struct Pair {
    runtime: Runtime,
    near: Session,
    far: Session,
    scope: Scope,
}

impl Pair {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let scope = Scope::new();
        let (near, far) = runtime.block_on(async {
            let (one, other) = tokio::io::duplex(256 << 10);
            let near = Session::start(one, Side::Gateway, &scope);
            (near, Session::start(other, Side::Agent, &scope))
        });
        Self { runtime, near, far, scope }
    }

    fn run<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(work)
    }

    async fn stream(&self) -> (Stream, Stream) {
        let near = self.near.open(&header()).expect("an open session takes streams");
        let (_, far) = self.far.accept().await.expect("an open session has the stream");
        (near, far)
    }
}

fn header() -> StreamHeader {
    StreamHeader {
        service: "example.com".parse().expect("a host is a service"),
        client_addr: None,
        connect_timeout: Duration::from_secs(10),
    }
}

/// A request of 100 bytes and an answer of 1 KiB on streams that stay, all at once: a round of each side.
#[divan::bench(args = [1, 16, 64, 256])]
fn exchange(bencher: Bencher<'_, '_>, streams: usize) {
    let pair = Pair::new();
    let mut joined = pair.run(async {
        let mut joined = Vec::new();
        for _ in 0..streams {
            joined.push(pair.stream().await);
        }
        joined
    });
    bencher.counter(ItemsCount::new(streams)).bench_local(|| {
        pair.run(join_all(joined.iter_mut().map(|(near, far)| async move {
            let (mut request, mut answer) = ([0; 100], [0; 1024]);
            near.write_all(&request).await.expect("written");
            far.read_exact(&mut request).await.expect("read");
            far.write_all(&answer).await.expect("written");
            near.read_exact(&mut answer).await.expect("read");
        })))
    });
}

/// A stream that is opened, answered and ended.
#[divan::bench]
fn open_and_end(bencher: Bencher<'_, '_>) {
    let pair = Pair::new();
    bencher.bench_local(|| {
        pair.run(async {
            let (mut near, mut far) = pair.stream().await;
            near.shutdown().await.expect("ended");
            far.shutdown().await.expect("ended");
            let mut rest = Vec::new();
            near.read_to_end(&mut rest).await.expect("read");
            far.read_to_end(&mut rest).await.expect("read");
            rest
        })
    });
}

/// Bytes in one direction of one stream.
#[divan::bench]
fn bulk(bencher: Bencher<'_, '_>) {
    let pair = Pair::new();
    let (mut near, mut far) = pair.run(pair.stream());
    let data = vec![7; 16 * MIB];
    bencher.counter(BytesCount::new(data.len())).bench_local(|| {
        pair.run(async {
            let send = async { near.write_all(&data).await.expect("written") };
            let take = async {
                let mut left = data.len();
                while left > 0 {
                    let chunk = far.read_chunk().await.expect("read").expect("not at its end");
                    left -= black_box(chunk).len();
                }
            };
            tokio::join!(send, take);
        });
    });
}

struct Nobody;

impl Meter for Nobody {
    fn sent(&self, _: u64) {}
    fn received(&self, _: u64) {}
}

/// The same through the pump: from a connection in memory into a stream, and out of it into another.
#[divan::bench]
fn pump(bencher: Bencher<'_, '_>) {
    let pair = Pair::new();
    let terms = Terms { lost: Reason::UpstreamClosed, patience: None };
    let (near, far) = pair.run(pair.stream());
    let (mut client, near_end) = tokio::io::duplex(256 << 10);
    let (mut upstream, far_end) = tokio::io::duplex(256 << 10);
    pair.run(async {
        pair.scope.spawn("near", async move {
            black_box(relay(near, near_end, terms, &Nobody).await);
        });
        pair.scope.spawn("far", async move {
            black_box(relay(far, far_end, terms, &Nobody).await);
        });
    });
    let data = vec![7; 16 * MIB];
    let mut taken = vec![0; 64 << 10];
    bencher.counter(BytesCount::new(data.len())).bench_local(|| {
        pair.run(async {
            let send = async { client.write_all(&data).await.expect("written") };
            let take = async {
                let mut left = data.len();
                while left > 0 {
                    left -= upstream.read(&mut taken).await.expect("read");
                }
            };
            tokio::join!(send, take);
        });
    });
}
