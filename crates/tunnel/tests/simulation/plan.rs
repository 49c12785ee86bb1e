//! What will happen in one run: how the network is, what every stream does at either end, and which faults strike.

use std::time::Duration;

use adit_proto::reason::Reason;

use crate::pipe::{Fault, Weather};
use crate::random::Random;

/// How one end of a stream ends it other than in order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Abort {
    Reset(Reason),
    Drop,
}

/// What one end of a stream writes.
#[derive(Debug, Clone)]
pub(crate) struct Writing {
    pub(crate) total: u64,
    /// Bytes of one write at most.
    pub(crate) chunk: usize,
    /// A pause after so many bytes.
    pub(crate) pause: Option<(u64, Duration)>,
    /// What happens instead of a half-close.
    pub(crate) abort: Option<Abort>,
}

/// How one end of a stream reads.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// Size of its buffer; `None`: it takes chunks as they come.
    pub(crate) piece: Option<usize>,
    /// A pause after so many bytes.
    pub(crate) pause: Option<(u64, Duration)>,
    /// It takes nothing for a while, from so many bytes on.
    pub(crate) stall: Option<(u64, Duration)>,
    /// After so many bytes it gives up.
    pub(crate) abort: Option<(u64, Abort)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) writing: Writing,
    pub(crate) reading: Reading,
}

/// What stands behind the agent's end of a stream.
#[derive(Debug, Clone)]
pub(crate) enum Behind {
    /// The agent itself writes and reads.
    Peer(Part),
    /// A relay to an upstream that sends everything back, through a pipe of this size, and may be cut after so
    /// many bytes.
    Echo { pipe: usize, cut: Option<u64> },
    /// No: the stream is reset at once.
    Refused(Reason),
}

/// One stream.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) start: Duration,
    pub(crate) client: Part,
    pub(crate) behind: Behind,
}

/// What strikes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    /// A fault of the network, and when it is over.
    Strike(Fault, Duration),
    /// The clocks of everybody jump.
    Jump(Duration),
    /// This end of the session (0: gateway, 1: agent) drains for at most this long, and closes.
    Drain(usize, Duration),
    /// This end closes at once.
    Close(usize),
    /// This end's process dies.
    Crash(usize),
    /// The agent comes a second time while its first session stands.
    Again,
}

/// One run.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) weather: Weather,
    pub(crate) plans: Vec<Plan>,
    /// Lanes of a session once streams share it.
    pub(crate) lanes: usize,
    /// In order of time.
    pub(crate) storm: Vec<(Duration, Event)>,
}

const REASONS: &[Reason] =
    &[Reason::ClientGone, Reason::Cancelled, Reason::UpstreamClosed, Reason::IdleTimeout, Reason::Overloaded];

impl Scenario {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let span = random.between(1_000, 60_000);
        let streams = match random.below(10) {
            0 => 1,
            1..=6 => random.between(2, 12),
            7 | 8 => random.between(12, 40),
            _ => random.between(40, 150),
        };
        let weather = weather(&mut random.fork());
        // Many streams, and those that crawl, carry little each, or a run takes for ever.
        let most = match weather.buffer {
            1 => 20_000,
            2..5_000 => 1_000_000,
            _ => 20_000_000,
        };
        let round_trip = weather.latency + weather.jitter;
        let a_second = u64::try_from(weather.buffer * 1_000).unwrap()
            / (1 + u64::try_from(round_trip.as_millis()).unwrap());
        let most = most.min(weather.bandwidth.min(a_second) * 30) / streams;
        let plans = (0..streams).map(|_| plan(&mut random.fork(), span, most)).collect();
        let faults = if random.chance(25) { 0 } else { random.between(1, 6) };
        let mut storm: Vec<_> =
            (0..faults).map(|_| (random.millis(0, span), event(&mut random.fork()))).collect();
        storm.sort_by_key(|(at, _)| *at);
        Self { weather, plans, lanes: random.len(1, 3), storm }
    }
}

fn weather(random: &mut Random) -> Weather {
    let bandwidth = random.pick(&[200_000, 1_000_000, 10_000_000, 1_000_000_000]);
    let buffer = random.pick(&[1, 500, 5_000, 64_000, 256_000, 2_000_000]);
    // A byte at a time is for fast links; and no link holds more than a second's worth.
    let buffer = if buffer < 5_000 && bandwidth < 10_000_000 { 5_000 } else { buffer };
    let latency = if buffer < 5_000 { 0 } else { random.pick(&[0, 0, 1, 10, 50, 200]) };
    Weather {
        latency: Duration::from_millis(latency),
        jitter: Duration::from_millis(random.below(latency + 1)),
        bandwidth,
        buffer: buffer.min(usize::try_from(bandwidth).unwrap()),
        piecemeal: random.chance(40),
        staged: random.chance(40),
    }
}

fn abort(random: &mut Random) -> Abort {
    if random.chance(50) { Abort::Drop } else { Abort::Reset(random.pick(REASONS)) }
}

/// A pause of no more than a few seconds in all.
fn pause(random: &mut Random, total: u64) -> Option<(u64, Duration)> {
    random.chance(20).then(|| {
        let pauses = random.between(1, 20);
        ((total / pauses).max(1), random.millis(0, 400))
    })
}

fn part(random: &mut Random, most: u64) -> Part {
    let total = random.volume().min(most);
    let is_odd = random.chance(20);
    let chunk = match random.below(4) {
        0 => random.len(1, 200).max(usize::try_from(total / 2_000).unwrap()),
        1 => random.len(1_000, 20_000),
        _ => random.len(20_000, 300_000),
    };
    let piece = if random.chance(50) { None } else { Some(random.len(300, 100_000)) };
    Part {
        writing: Writing {
            total,
            chunk,
            pause: pause(random, total),
            abort: (is_odd && random.chance(40)).then(|| abort(random)),
        },
        reading: Reading {
            piece,
            pause: pause(random, 300_000),
            stall: random.chance(15).then(|| (random.volume(), random.millis(100, 20_000))),
            abort: (is_odd && random.chance(40)).then(|| (random.volume(), abort(random))),
        },
    }
}

fn plan(random: &mut Random, span: u64, most: u64) -> Plan {
    let behind = match random.below(20) {
        0 => Behind::Refused(random.pick(&[Reason::UpstreamRefused, Reason::NotOffered])),
        1..=7 => Behind::Echo {
            pipe: random.pick(&[1_000, 8_000, 70_000]),
            cut: random.chance(15).then(|| random.volume()),
        },
        _ => Behind::Peer(part(random, most)),
    };
    Plan { start: random.millis(0, span), client: part(random, most), behind }
}

fn event(random: &mut Random) -> Event {
    let side = random.len(0, 1);
    match random.below(16) {
        0..=2 => Event::Strike(Fault::BlackHole, random.millis(100, 40_000)),
        3 | 4 => Event::Strike(Fault::OneWay(side), random.millis(100, 40_000)),
        5 | 6 => Event::Strike(Fault::Cut, Duration::ZERO),
        7 => Event::Strike(Fault::HalfOpen(side), random.millis(100, 40_000)),
        8 => Event::Strike(Fault::Truncate(side), Duration::ZERO),
        9 => Event::Jump(random.millis(10, 100_000)),
        10 | 11 => Event::Drain(side, random.millis(0, 40_000)),
        12 | 13 => Event::Close(side),
        14 => Event::Crash(side),
        _ => Event::Again,
    }
}
