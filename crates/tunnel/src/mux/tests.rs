//! Two state machines with a simulated link between them: seeded, no runtime, no real time.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::task::{Poll, Waker};
use std::time::Duration;

use adit_proto::frame::{self, Kind};
use adit_proto::header::StreamHeader;
use adit_proto::limits;
use adit_proto::names::HostPattern;
use adit_proto::reason::Reason;
use bytes::{Buf as _, BytesMut};

use super::writing::QUANTUM;
use super::{Gone, Mux, Side, Violation};

fn header() -> StreamHeader {
    StreamHeader {
        service: HostPattern::Any.into(),
        client_addr: None,
        connect_timeout: Duration::from_secs(10),
    }
}

fn noop() -> &'static Waker {
    Waker::noop()
}

/// Moves every byte that is ready from one side to the other, in pieces of at most `piece` bytes.
fn deliver(from: &mut Mux, to: &mut Mux, piece: usize) -> Result<usize, Violation> {
    let mut wake = Vec::new();
    let mut round = from.take_round(BytesMut::new(), &mut wake);
    let moved = round.len();
    let mut input = BytesMut::new();
    while !round.is_empty() {
        let n = piece.min(round.len());
        input.extend_from_slice(&round[..n]);
        round.advance(n);
        to.feed(&mut input, &mut wake)?;
    }
    assert!(input.is_empty(), "a round ends with a whole frame");
    Ok(moved)
}

fn pair() -> (Mux, Mux) {
    (Mux::new(Side::Gateway), Mux::new(Side::Agent))
}

/// A stream that is open at both ends.
fn open(gateway: &mut Mux, agent: &mut Mux) -> u32 {
    let id = gateway.open(&header(), 0).unwrap();
    deliver(gateway, agent, usize::MAX).unwrap();
    let Poll::Ready(Some((accepted, _))) = agent.poll_accept(noop()) else { panic!("no stream arrived") };
    assert_eq!(accepted, id);
    id
}

fn write(mux: &mut Mux, id: u32, bytes: &[u8]) -> usize {
    match mux.poll_write(id, &[IoSlice::new(bytes)], noop()) {
        Poll::Ready(Ok(n)) => n,
        Poll::Ready(Err(gone)) => panic!("{gone:?}"),
        Poll::Pending => 0,
    }
}

fn read(mux: &mut Mux, id: u32) -> Option<Vec<u8>> {
    match mux.poll_read(id, noop()) {
        Poll::Ready(Ok(bytes)) => Some(bytes.to_vec()),
        Poll::Ready(Err(gone)) => panic!("{gone:?}"),
        Poll::Pending => None,
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

#[test]
fn every_byte_arrives_once_and_in_order_whatever_the_sizes_and_the_interleaving() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let (mut gateway, mut agent) = pair();
        let ids: Vec<_> = (0..=random.below(6)).map(|_| open(&mut gateway, &mut agent)).collect();
        let total = 1 + random.below(600_000);
        let mut sent = vec![0; ids.len()];
        let mut got = vec![0; ids.len()];
        let data: Vec<u8> = (0..total).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let mut steps = 0;
        while got.iter().any(|&n| n < total) {
            steps += 1;
            assert!(steps < 200_000, "seed {seed} makes no progress: {sent:?} {got:?}");
            let i = random.below(ids.len());
            match random.below(4) {
                0 | 1 if sent[i] < total => {
                    let end = total.min(sent[i] + 1 + random.below(100_000));
                    sent[i] += write(&mut gateway, ids[i], &data[sent[i]..end]);
                    if sent[i] == total {
                        gateway.finish(ids[i]);
                    }
                }
                2 => {
                    let piece = 1 + random.below(50_000);
                    deliver(&mut gateway, &mut agent, piece).unwrap();
                    deliver(&mut agent, &mut gateway, piece).unwrap();
                }
                _ => {
                    if let Some(bytes) = read(&mut agent, ids[i]) {
                        assert_eq!(bytes, data[got[i]..got[i] + bytes.len()], "seed {seed}");
                        got[i] += bytes.len();
                    }
                }
            }
        }
        deliver(&mut gateway, &mut agent, usize::MAX).unwrap();
        for &id in &ids {
            assert_eq!(read(&mut agent, id), Some(Vec::new()), "the end follows the last byte");
        }
    }
}

#[test]
fn a_reader_that_does_not_read_stops_its_own_writer_and_nobody_else() {
    let (mut gateway, mut agent) = pair();
    let stalled = open(&mut gateway, &mut agent);
    let lively = open(&mut gateway, &mut agent);
    let chunk = vec![1; QUANTUM];
    let mut accepted = 0;
    for _ in 0..100 {
        accepted += write(&mut gateway, stalled, &chunk);
        deliver(&mut gateway, &mut agent, usize::MAX).unwrap();
    }
    assert_eq!(accepted, usize::try_from(limits::INITIAL_WINDOW).unwrap());

    for _ in 0..100 {
        assert_eq!(write(&mut gateway, lively, &chunk), chunk.len());
        deliver(&mut gateway, &mut agent, usize::MAX).unwrap();
        assert_eq!(read(&mut agent, lively).unwrap().len(), chunk.len());
        deliver(&mut agent, &mut gateway, usize::MAX).unwrap();
    }

    while read(&mut agent, stalled).is_some() {}
    deliver(&mut agent, &mut gateway, usize::MAX).unwrap();
    assert!(write(&mut gateway, stalled, &chunk) > 0, "credit returns with reading");
}

#[test]
fn a_bulk_stream_delays_a_small_one_by_one_round_at_most() {
    let (mut gateway, mut agent) = pair();
    let bulk = open(&mut gateway, &mut agent);
    let small = open(&mut gateway, &mut agent);
    let chunk = vec![1; limits::MAX_DATA_PAYLOAD];
    assert_eq!(write(&mut gateway, bulk, &chunk), QUANTUM);
    assert_eq!(write(&mut gateway, bulk, &chunk), 0, "the round is full for the bulk stream");
    assert_eq!(write(&mut gateway, small, b"ping"), 4, "but not for the small one");
    deliver(&mut gateway, &mut agent, usize::MAX).unwrap();
    assert_eq!(read(&mut agent, small).unwrap(), b"ping");
}

#[test]
fn bulk_streams_share_a_round_evenly() {
    let (mut gateway, mut agent) = pair();
    let ids: Vec<_> = (0..4).map(|_| open(&mut gateway, &mut agent)).collect();
    let chunk = vec![1; limits::MAX_DATA_PAYLOAD];
    let mut got = [0; 4];
    for _ in 0..50 {
        for &id in &ids {
            write(&mut gateway, id, &chunk);
        }
        deliver(&mut gateway, &mut agent, usize::MAX).unwrap();
        for (i, &id) in ids.iter().enumerate() {
            got[i] += read(&mut agent, id).map_or(0, |bytes| bytes.len());
        }
        deliver(&mut agent, &mut gateway, usize::MAX).unwrap();
    }
    let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
    assert!(*least > 0 && most - least <= QUANTUM, "{got:?}");
}

#[test]
fn a_window_grows_only_while_credit_is_what_limits_the_sender() {
    for (pause, grows) in [(Duration::from_millis(1), true), (Duration::from_secs(1), false)] {
        let (mut gateway, mut agent) = pair();
        let id = open(&mut gateway, &mut agent);
        // A probe of 100 ms round trip.
        agent.probe();
        deliver(&mut agent, &mut gateway, usize::MAX).unwrap();
        let mut now = Duration::from_millis(100);
        agent.set_now(now);
        deliver(&mut gateway, &mut agent, usize::MAX).unwrap();
        assert_eq!(agent.rtt(), Some(Duration::from_millis(100)));

        let chunk = vec![1; QUANTUM];
        for _ in 0..200 {
            write(&mut gateway, id, &chunk);
            deliver(&mut gateway, &mut agent, usize::MAX).unwrap();
            now += pause;
            agent.set_now(now);
            drop(agent.poll_read(id, noop()));
            deliver(&mut agent, &mut gateway, usize::MAX).unwrap();
        }
        let window = agent.rows[&id].recv_window;
        assert_eq!(window > limits::INITIAL_WINDOW, grows, "{window}");
        assert!(window <= limits::MAX_WINDOW);
    }
}

#[test]
fn a_window_grows_too_where_it_is_granted_once_in_a_round_trip() {
    let (mut gateway, mut agent) = pair();
    let id = open(&mut gateway, &mut agent);
    let round_trip = Duration::from_millis(100);
    agent.probe();
    deliver(&mut agent, &mut gateway, usize::MAX).unwrap();
    let mut now = round_trip;
    agent.set_now(now);
    deliver(&mut gateway, &mut agent, usize::MAX).unwrap();
    for _ in 0..5 {
        // Half of the window less a byte, and the rest of it: one grant for all.
        let half = limits::INITIAL_WINDOW as usize / 2;
        for len in [half - 1, half + 1] {
            let chunk = vec![1; len];
            let mut sent = 0;
            while sent < len {
                let more = write(&mut gateway, id, &chunk[sent..]);
                deliver(&mut gateway, &mut agent, usize::MAX).unwrap();
                sent += more;
                if more == 0 {
                    break;
                }
            }
        }
        // Later by more than the round trip, as it is with anything to do besides.
        now += round_trip + Duration::from_millis(1);
        agent.set_now(now);
        let mut pieces = VecDeque::new();
        while agent.poll_read_pieces(id, noop(), &mut pieces).is_ready() {}
        assert!(!pieces.is_empty());
        deliver(&mut agent, &mut gateway, usize::MAX).unwrap();
    }
    assert!(agent.rows[&id].recv_window > limits::INITIAL_WINDOW, "{}", agent.rows[&id].recv_window);
}

#[test]
fn a_reset_ends_both_directions_and_late_frames_are_forgiven() {
    let (mut gateway, mut agent) = pair();
    let id = open(&mut gateway, &mut agent);
    write(&mut agent, id, b"on its way");
    write(&mut gateway, id, b"last words");
    let mut wake = Vec::new();
    gateway.reset(id, Reason::ClientGone, &mut wake);
    gateway.release(id, &mut wake);
    deliver(&mut agent, &mut gateway, usize::MAX).unwrap();
    deliver(&mut gateway, &mut agent, usize::MAX).unwrap();
    assert_eq!(agent.gone(id), Some(Gone::Remote(Reason::ClientGone)));
    assert_eq!(read(&mut agent, id).unwrap(), b"last words", "what arrived before a reset can be read");
    assert!(matches!(agent.poll_read(id, noop()), Poll::Ready(Err(Gone::Remote(Reason::ClientGone)))));
    assert!(matches!(
        agent.poll_write(id, &[IoSlice::new(b"x")], noop()),
        Poll::Ready(Err(Gone::Remote(Reason::ClientGone)))
    ));
    agent.release(id, &mut wake);
    assert_eq!((gateway.streams(), agent.streams()), (0, 0));
}

#[test]
fn a_stream_that_was_given_up_never_seems_to_end_in_order() {
    // The last bytes and the half-close come before or after; the reader must not take what it has for all.
    for comes_first in [true, false] {
        for closes in [true, false] {
            let (mut gateway, mut agent) = pair();
            let id = open(&mut gateway, &mut agent);
            write(&mut agent, id, b"last words");
            agent.finish(id);
            if comes_first {
                deliver(&mut agent, &mut gateway, usize::MAX).unwrap();
            }
            let mut wake = Vec::new();
            if closes {
                gateway.close(Reason::SessionTimeout, &mut wake);
            } else {
                gateway.reset(id, Reason::IdleTimeout, &mut wake);
            }
            if !comes_first {
                deliver(&mut agent, &mut gateway, usize::MAX).unwrap();
            }
            let mut got = Vec::new();
            let end = loop {
                match gateway.poll_read(id, noop()) {
                    Poll::Ready(Ok(bytes)) if bytes.is_empty() => break None,
                    Poll::Ready(Ok(bytes)) => got.extend_from_slice(&bytes),
                    Poll::Ready(Err(gone)) => break Some(gone),
                    Poll::Pending => panic!("nobody ends it"),
                }
            };
            assert!(end.is_some() || got == b"last words", "{comes_first} {closes}: {got:?}");
        }
    }
}

#[test]
fn a_session_that_ends_forgets_the_streams_that_nobody_has_accepted() {
    let (mut gateway, mut agent) = pair();
    gateway.open(&header(), 0).unwrap();
    deliver(&mut gateway, &mut agent, usize::MAX).unwrap();
    assert_eq!(agent.streams(), 1);
    agent.close(Reason::AgentLost, &mut Vec::new());
    assert_eq!(agent.streams(), 0);
}

#[test]
fn dropping_an_unfinished_stream_resets_it_and_a_finished_one_does_not() {
    let (mut gateway, mut agent) = pair();
    let mut wake = Vec::new();
    let unfinished = open(&mut gateway, &mut agent);
    gateway.release(unfinished, &mut wake);
    deliver(&mut gateway, &mut agent, usize::MAX).unwrap();
    assert_eq!(agent.gone(unfinished), Some(Gone::Remote(Reason::Cancelled)));

    let finished = open(&mut gateway, &mut agent);
    gateway.finish(finished);
    agent.finish(finished);
    deliver(&mut gateway, &mut agent, usize::MAX).unwrap();
    deliver(&mut agent, &mut gateway, usize::MAX).unwrap();
    gateway.release(finished, &mut wake);
    deliver(&mut gateway, &mut agent, usize::MAX).unwrap();
    assert_eq!(agent.gone(finished), None);
}

#[test]
fn a_draining_side_refuses_new_streams_and_finishes_old_ones() {
    let (mut gateway, mut agent) = pair();
    let old = open(&mut gateway, &mut agent);
    // Opened before the announcement arrives: refused with a reason the gateway can act on.
    agent.go_away(Reason::AgentDraining);
    let crossed = gateway.open(&header(), 0).unwrap();
    deliver(&mut gateway, &mut agent, usize::MAX).unwrap();
    deliver(&mut agent, &mut gateway, usize::MAX).unwrap();
    assert_eq!(gateway.gone(crossed), Some(Gone::Remote(Reason::AgentDraining)));
    assert_eq!(gateway.open(&header(), 0), Err(Reason::AgentDraining));
    assert_eq!(write(&mut gateway, old, b"still here"), 10);
    deliver(&mut gateway, &mut agent, usize::MAX).unwrap();
    assert_eq!(read(&mut agent, old).unwrap(), b"still here");
}

#[test]
fn closing_a_session_ends_every_stream_with_its_reason() {
    let (mut gateway, mut agent) = pair();
    let id = open(&mut gateway, &mut agent);
    let mut wake = Vec::new();
    gateway.close(Reason::SessionTimeout, &mut wake);
    assert_eq!(gateway.gone(id), Some(Gone::Remote(Reason::SessionTimeout)));
    assert_eq!(gateway.open(&header(), 0), Err(Reason::SessionTimeout));
    assert!(matches!(gateway.poll_accept(noop()), Poll::Ready(None)));
}

/// Feeds hand-made frames to a fresh agent side with one open stream (number 1).
fn violation(frames: &[(Kind, u32, &[u8])]) -> Option<Violation> {
    let (mut gateway, mut agent) = pair();
    open(&mut gateway, &mut agent);
    let mut input = BytesMut::new();
    for &(kind, stream, payload) in frames {
        frame::put(&mut input, kind, stream, payload);
    }
    agent.feed(&mut input, &mut Vec::new()).err()
}

#[test]
fn a_peer_that_breaks_the_protocol_is_found_out() {
    let full = vec![0; usize::try_from(limits::INITIAL_WINDOW).unwrap() / 2];
    let half: Vec<_> = full.chunks(limits::MAX_DATA_PAYLOAD).map(|c| (Kind::Data, 1, c)).collect();
    let too_much: Vec<_> = half.iter().chain(&half).copied().chain([(Kind::Data, 1, &b"x"[..])]).collect();
    assert_eq!(violation(&too_much), Some(Violation::Credit(1)));
    assert_eq!(violation(&[(Kind::Data, 3, b"x")]), Some(Violation::UnknownStream(Kind::Data)));
    assert_eq!(violation(&[(Kind::Data, 2, b"x")]), Some(Violation::UnknownStream(Kind::Data)));
    assert_eq!(violation(&[(Kind::Open, 2, b"x")]), Some(Violation::StreamOrder(2)));
    assert_eq!(violation(&[(Kind::Open, 1, b"x")]), Some(Violation::StreamOrder(1)));
    assert!(matches!(violation(&[(Kind::Open, 3, b"\xff")]), Some(Violation::Malformed(_))));
    assert_eq!(violation(&[(Kind::Fin, 1, b""), (Kind::Data, 1, b"x")]), Some(Violation::AfterFin(1)));
    assert_eq!(violation(&[(Kind::Hello, 0, b"x")]), Some(Violation::Unexpected(Kind::Hello)));
    assert_eq!(violation(&[(Kind::Window, 1, &u32::MAX.to_be_bytes())]), Some(Violation::Credit(1)));
    assert_eq!(violation(&[(Kind::Data, 1, b"x"), (Kind::Fin, 1, b"y")]), None);
}

#[test]
fn only_opens_and_data_ask_for_an_answer() {
    let (mut gateway, mut agent) = pair();
    let id = gateway.open(&header(), 0).unwrap();
    assert!(gateway.take_asks());
    deliver(&mut gateway, &mut agent, usize::MAX).unwrap();
    agent.confirm(id);
    agent.probe();
    assert!(!agent.take_asks());
    deliver(&mut agent, &mut gateway, usize::MAX).unwrap();
    assert!(!gateway.take_asks(), "an answer to a probe asks for nothing");
    write(&mut gateway, id, b"x");
    assert!(gateway.take_asks());
}

#[test]
fn a_ping_flood_makes_a_bounded_answer() {
    let (_, mut agent) = pair();
    let mut input = BytesMut::new();
    for _ in 0..10_000 {
        frame::put(&mut input, Kind::Ping, 0, &[0; 8]);
    }
    agent.feed(&mut input, &mut Vec::new()).unwrap();
    assert!(agent.take_round(BytesMut::new(), &mut Vec::new()).len() <= 16 * 16);
}

#[test]
fn a_peer_that_makes_us_talk_and_does_not_listen_is_read_no_further() {
    let (_, mut agent) = pair();
    let mut opens = 0;
    while !agent.is_backed_up() {
        opens += 1;
        assert!(opens < 100_000, "answers pile up without end");
        agent.set_now(Duration::from_millis(opens));
        let mut input = BytesMut::new();
        frame::put(&mut input, Kind::Ping, 0, &[0; 8]);
        agent.feed(&mut input, &mut Vec::new()).unwrap();
    }
}

#[test]
fn an_agent_that_opens_a_stream_breaks_the_protocol_unless_that_was_granted() {
    let mut gateway = Mux::new(Side::Gateway);
    let mut payload = BytesMut::new();
    header().encode(&mut payload);
    let mut input = BytesMut::new();
    frame::put(&mut input, Kind::Open, 2, &payload);
    let again = input.clone();
    assert_eq!(gateway.feed(&mut input, &mut Vec::new()), Err(Violation::Unexpected(Kind::Open)));
    let mut gateway = Mux::new(Side::Gateway);
    gateway.take_opens();
    input = again;
    assert_eq!(gateway.feed(&mut input, &mut Vec::new()), Ok(()));
    assert_eq!(gateway.streams(), 1);
}

proptest::proptest! {
    #[test]
    fn feeding_anything_is_total(bytes: Vec<u8>) {
        let (mut gateway, mut agent) = pair();
        open(&mut gateway, &mut agent);
        drop(agent.feed(&mut bytes.as_slice().into(), &mut Vec::new()));
        drop(gateway.feed(&mut bytes.as_slice().into(), &mut Vec::new()));
    }
}
