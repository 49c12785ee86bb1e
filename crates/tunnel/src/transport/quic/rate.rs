//! How much may be under way: by what arrives, not by what is lost.
//!
//! Most paths that lose one packet in a hundred lose it to noise, and a sender that takes each loss for a full queue
//! comes to a stop there. This one measures, once a round trip, how fast bytes arrive, and keeps a little more under
//! way than that rate needs over the shortest round trip. So it doubles each round trip while the path takes it, and
//! settles with a short queue when the path is full. Loss beyond what noise explains makes it careful for a while.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

/// Packets under way before anything is known.
const INITIAL: u64 = 32;
/// Packets under way at least.
const LEAST: u64 = 4;
/// Rounds over which the best rate counts; rounds that had nothing more to send do not push others out.
const ROUNDS: usize = 10;
/// How long the shortest round trip is believed before it is measured anew.
const SHORTEST_FOR: Duration = Duration::from_secs(10);
/// A queue stands when a round trip takes this much longer than the shortest one.
const QUEUE: f64 = 1.25;
/// How much is kept under way, in products of rate and round trip: while there is no queue, when one stands, for a
/// while after heavy loss, and in the round that measures the shortest round trip.
const FAST: f64 = 2.0;
const STEADY: f64 = 1.5;
const CAREFUL: f64 = 1.1;
const DRAINED: f64 = 0.5;
/// More loss in a round than this is not noise.
const HEAVY: f64 = 0.1;
/// How long heavy loss is remembered.
const CAREFUL_FOR: Duration = Duration::from_secs(10);

/// Makes one for each connection.
#[derive(Debug)]
pub(super) struct ByRate;

impl ControllerFactory for ByRate {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Rate::new(now, current_mtu))
    }
}

#[derive(Debug, Clone)]
struct Rate {
    mtu: u64,
    window: u64,
    /// Bytes a second in the last rounds.
    rates: [f64; ROUNDS],
    next: usize,
    shortest: Option<(Duration, Instant)>,
    is_draining: bool,
    careful_until: Option<Instant>,
    last_sent: u64,
    round: Round,
}

/// From a packet's departure to its acknowledgement, and all that arrives meanwhile.
#[derive(Debug, Clone)]
struct Round {
    began: Instant,
    /// The last packet sent before it began.
    ends_with: u64,
    acked: u64,
    lost: u64,
    rtt: Option<Duration>,
    /// There was nothing more to send at some time.
    is_idle: bool,
}

impl Round {
    const fn new(began: Instant, ends_with: u64) -> Self {
        Self { began, ends_with, acked: 0, lost: 0, rtt: None, is_idle: false }
    }

    #[expect(clippy::cast_precision_loss, reason = "shares and rates; nobody counts with them")]
    fn loss(&self) -> f64 {
        self.lost as f64 / (self.lost + self.acked).max(1) as f64
    }
}

impl Rate {
    fn new(now: Instant, mtu: u16) -> Self {
        Self {
            mtu: mtu.into(),
            window: INITIAL * u64::from(mtu),
            rates: [0.0; ROUNDS],
            next: 0,
            shortest: None,
            is_draining: false,
            careful_until: None,
            last_sent: 0,
            round: Round::new(now, 0),
        }
    }

    fn best(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    fn note_rate(&mut self, rate: f64, is_idle: bool) {
        if is_idle {
            // Says what there was to send, unless it was more than ever.
            self.rates[self.next] = self.rates[self.next].max(rate);
            return;
        }
        self.next = (self.next + 1) % ROUNDS;
        self.rates[self.next] = rate;
    }

    fn note_round_trip(&mut self, now: Instant, rtt: Duration, is_idle: bool) {
        let was_draining = std::mem::take(&mut self.is_draining);
        match self.shortest {
            Some((shortest, at)) if rtt > shortest => {
                if now.duration_since(at) < SHORTEST_FOR {
                    return;
                }
                // With no queue of ours in the way this is what the path takes; otherwise make it so for a round.
                if was_draining || is_idle {
                    self.shortest = Some((rtt, now));
                } else {
                    self.is_draining = true;
                }
            }
            _ => self.shortest = Some((rtt, now)),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate; a byte more or less is nothing")]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounded below and far above"
    )]
    fn finish_round(&mut self, now: Instant) {
        let round = std::mem::replace(&mut self.round, Round::new(now, self.last_sent));
        let Some(rtt) = round.rtt else { return };
        self.note_round_trip(now, rtt, round.is_idle);
        let shortest = self.shortest.map_or(rtt, |(shortest, _)| shortest);
        let took = now.duration_since(round.began).max(shortest);
        let rate = round.acked as f64 / took.as_secs_f64();
        if round.loss() > HEAVY && round.lost > LEAST * self.mtu {
            self.careful_until = Some(now + CAREFUL_FOR);
            self.rates = [rate; ROUNDS];
        } else {
            self.note_rate(rate, round.is_idle);
        }
        let is_careful = self.careful_until.is_some_and(|until| now < until);
        let gain = match () {
            () if self.is_draining => DRAINED,
            () if is_careful => CAREFUL,
            () if rtt.as_secs_f64() > shortest.as_secs_f64() * QUEUE => STEADY,
            () => FAST,
        };
        let wanted = self.best() * shortest.as_secs_f64() * gain;
        let least = if is_careful { LEAST } else { INITIAL };
        self.window = (wanted as u64).max(least * self.mtu);
    }
}

impl Controller for Rate {
    fn on_sent(&mut self, _now: Instant, _bytes: u64, last_packet_number: u64) {
        self.last_sent = last_packet_number;
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _app_limited: bool, _rtt: &RttEstimator) {
        self.round.acked += bytes;
        let rtt = now.duration_since(sent);
        self.round.rtt = Some(self.round.rtt.map_or(rtt, |least| least.min(rtt)));
    }

    fn on_end_acks(&mut self, now: Instant, _in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.round.is_idle |= app_limited;
        if largest.is_some_and(|largest| largest >= self.round.ends_with) {
            self.finish_round(now);
        }
    }

    fn on_congestion_event(&mut self, now: Instant, _sent: Instant, is_persistent: bool, lost: u64) {
        self.round.lost += lost;
        if is_persistent {
            // Nothing gets through: what was known of the path is over.
            *self = Self { last_sent: self.last_sent, ..Self::new(now, 0) }.with_mtu(self.mtu);
            self.window = LEAST * self.mtu;
            self.round = Round::new(now, self.last_sent);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu.into();
        self.window = self.window.max(LEAST * self.mtu);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL * self.mtu
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl Rate {
    const fn with_mtu(mut self, mtu: u64) -> Self {
        self.mtu = mtu;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u16 = 1200;
    const RTT: Duration = Duration::from_millis(100);

    /// A path with so many bytes a second, and a sender that always has more to send unless it is idle.
    struct Path {
        rate: Rate,
        now: Instant,
        bytes_a_second: f64,
        /// Of a thousand.
        loss: u64,
        is_idle: bool,
    }

    impl Path {
        fn new(bytes_a_second: f64) -> Self {
            let now = Instant::now();
            Self { rate: Rate::new(now, MTU), now, bytes_a_second, loss: 0, is_idle: false }
        }

        /// A window's worth of bytes goes and is acknowledged.
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a model"
        )]
        fn round(&mut self, under_way: u64) {
            let fits = (self.bytes_a_second * RTT.as_secs_f64()) as u64;
            // What does not fit waits in a queue.
            let took = RTT.mul_f64((under_way as f64 / fits as f64).max(1.0));
            let sent = self.now;
            self.rate.on_sent(self.now, under_way, self.rate.last_sent + 1);
            self.now += took;
            let lost = under_way * self.loss / 1000;
            if lost > 0 {
                self.rate.on_congestion_event(self.now, sent, false, lost);
            }
            self.rate.round.acked += under_way - lost;
            self.rate.round.rtt = Some(took);
            self.rate.on_end_acks(self.now, 0, self.is_idle, Some(self.rate.last_sent));
        }

        fn rounds(&mut self, rounds: usize) -> u64 {
            for _ in 0..rounds {
                self.round(self.rate.window());
            }
            self.rate.window()
        }
    }

    #[test]
    fn it_doubles_until_the_path_is_full_and_settles_with_a_short_queue() {
        let mut path = Path::new(12_500_000.0);
        let first = path.rate.window();
        assert!(path.rounds(4) > first * 8, "{}", path.rate.window());
        let fits = 1_250_000;
        let settled = path.rounds(40);
        assert!((fits..=fits * 2).contains(&settled), "{settled}");
    }

    #[test]
    fn noise_does_not_slow_it_down_and_heavy_loss_does() {
        let mut path = Path::new(12_500_000.0);
        path.loss = 20;
        assert!(path.rounds(40) > 1_200_000, "{}", path.rate.window());
        path.loss = 300;
        let careful = path.rounds(1);
        assert!(careful < 1_400_000, "{careful}");
        path.loss = 0;
        assert!(path.rounds(200) > 1_200_000, "and it is forgotten: {}", path.rate.window());
    }

    #[test]
    fn having_little_to_send_says_nothing_about_the_path() {
        let mut path = Path::new(12_500_000.0);
        let busy = path.rounds(20);
        path.is_idle = true;
        for _ in 0..100 {
            path.round(5000);
        }
        assert!(path.rate.window() > busy / 3, "{} of {busy}", path.rate.window());
    }

    #[test]
    fn a_path_that_becomes_narrow_is_noticed_and_one_on_which_nothing_arrives_begins_anew() {
        let mut path = Path::new(12_500_000.0);
        path.rounds(20);
        path.bytes_a_second = 1_250_000.0;
        assert!(path.rounds(400) < 300_000, "{}", path.rate.window());
        path.rate.on_congestion_event(path.now, path.now, true, 1);
        assert_eq!(path.rate.window(), LEAST * u64::from(MTU));
        assert!(path.rounds(30) > 100_000, "{}", path.rate.window());
    }
}
