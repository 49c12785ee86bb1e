//! A UDP path between an agent and a gateway: as long, narrow and lossy as a test wants it, and changeable meanwhile.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use adit_tunnel::scope::Scope;
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes that wait for their turn on a narrow path before further ones are dropped.
const QUEUE: u64 = 2 << 20;

/// What a path is like, each way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions {
    /// How long a packet takes.
    pub delay: Duration,
    /// How many of 1000 packets are lost.
    pub loss: u32,
    /// Bits a second; 0: any number.
    pub rate: u64,
}

/// A path. It ends when dropped.
#[derive(Debug)]
pub struct UdpPath {
    addr: SocketAddr,
    loss: Arc<AtomicU32>,
    /// Packets that came in, and those of them that were lost.
    counts: Arc<(AtomicU64, AtomicU64)>,
    scope: Scope,
}

impl Drop for UdpPath {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

impl UdpPath {
    /// A path to `target`.
    pub async fn start(target: SocketAddr, conditions: Conditions) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let path = Self {
            addr: front.local_addr().unwrap(),
            loss: Arc::new(AtomicU32::new(conditions.loss)),
            counts: Arc::default(),
            scope: Scope::new(),
        };
        let link = Link { conditions, loss: Arc::clone(&path.loss), counts: Arc::clone(&path.counts) };
        let scope = path.scope.clone();
        path.scope.spawn("path", async move {
            let mut flows: HashMap<SocketAddr, Arc<Lane>> = HashMap::new();
            let mut packet = vec![0; 65_536];
            while let Ok((n, from)) = front.recv_from(&mut packet).await {
                let onward = match flows.entry(from) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => {
                        let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                        let onward = Lane::start(&link, Arc::clone(&back), target, &scope);
                        let homeward = Lane::start(&link, Arc::clone(&front), from, &scope);
                        scope.spawn("path back", async move {
                            let mut packet = vec![0; 65_536];
                            while let Ok(n) = back.recv(&mut packet).await {
                                homeward.take(&packet[..n]);
                            }
                        });
                        new.insert(onward)
                    }
                };
                onward.take(&packet[..n]);
            }
        });
        path
    }

    /// Where it begins.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on so many of 1000 packets are lost.
    pub fn lose(&self, of_a_thousand: u32) {
        self.loss.store(of_a_thousand, Ordering::Relaxed);
    }

    /// Packets that came in so far.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.counts.0.load(Ordering::Relaxed)
    }
}

struct Link {
    conditions: Conditions,
    loss: Arc<AtomicU32>,
    counts: Arc<(AtomicU64, AtomicU64)>,
}

/// One direction of one flow.
struct Lane {
    conditions: Conditions,
    loss: Arc<AtomicU32>,
    counts: Arc<(AtomicU64, AtomicU64)>,
    state: Mutex<State>,
    arrived: Notify,
}

struct State {
    under_way: VecDeque<(Instant, Vec<u8>)>,
    /// When the path has room for the next packet.
    free: Instant,
    random: u64,
}

impl Lane {
    fn start(link: &Link, socket: Arc<UdpSocket>, to: SocketAddr, scope: &Scope) -> Arc<Self> {
        let lane = Arc::new(Self {
            conditions: link.conditions,
            loss: Arc::clone(&link.loss),
            counts: Arc::clone(&link.counts),
            state: Mutex::new(State {
                under_way: VecDeque::new(),
                free: Instant::now(),
                random: 0x9E37_79B9_7F4A_7C15,
            }),
            arrived: Notify::new(),
        });
        let deliver = Arc::clone(&lane);
        scope.spawn("path lane", async move {
            loop {
                let next = deliver.state.lock().under_way.front().map(|(due, _)| *due);
                let Some(due) = next else {
                    deliver.arrived.notified().await;
                    continue;
                };
                // tidy: allow(sleep): the delay is what the path is for
                tokio::time::sleep_until(due).await;
                let now = Instant::now();
                loop {
                    let packet = {
                        let mut state = deliver.state.lock();
                        match state.under_way.front() {
                            Some((due, _)) if *due <= now => state.under_way.pop_front(),
                            _ => None,
                        }
                    };
                    let Some((_, packet)) = packet else { break };
                    // What the other end does not take is lost, as on any path.
                    drop(socket.send_to(&packet, to).await);
                }
            }
        });
        lane
    }

    fn take(&self, packet: &[u8]) {
        let mut state = self.state.lock();
        self.counts.0.fetch_add(1, Ordering::Relaxed);
        state.random ^= state.random << 13;
        state.random ^= state.random >> 7;
        state.random ^= state.random << 17;
        let now = Instant::now();
        let Conditions { delay, rate, loss: _ } = self.conditions;
        let waiting = state.free.saturating_duration_since(now);
        let length = u64::try_from(packet.len()).unwrap();
        let is_full = rate > 0 && waiting > Duration::from_secs_f64(QUEUE as f64 * 8.0 / rate as f64);
        if is_full || (state.random >> 16) % 1000 < u64::from(self.loss.load(Ordering::Relaxed)) {
            self.counts.1.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let takes =
            (length * 8 * 1_000_000_000).checked_div(rate).map_or(Duration::ZERO, Duration::from_nanos);
        state.free = state.free.max(now) + takes;
        let due = state.free + delay;
        state.under_way.push_back((due, packet.to_owned()));
        self.arrived.notify_one();
    }
}
