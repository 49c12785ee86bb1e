//! Is the peer still there? Any byte is life, probes are sent only into silence, and nothing trusts the kernel.

use std::time::Duration;

/// Bytes heard in silence that make the peer worth a word: more than probes and their answers.
const OWED_FROM: usize = 64;

/// Being asked so much later than wanted means that this process stood still: the machine slept, or was too busy.
const STOOD_STILL: Duration = Duration::from_millis(500);

/// How patient one side is. The two sides differ, so that in an idle session only the agent probes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Silence after which an idle session is probed.
    pub(crate) idle: Duration,
    /// Silence after which a session is probed while this side waits for something.
    pub(crate) waiting: Duration,
    /// How long an answer to a probe may take.
    pub(crate) answer: Duration,
    /// An idle session is looked at together with others, up to so much later: a process that has thousands wakes up
    /// twice a second for all of them, and not for each.
    pub(crate) grain: Duration,
}

impl Patience {
    /// Detects a dead link within 4 s while something waits and 14 s when idle.
    pub(crate) const AGENT: Self = Self {
        idle: Duration::from_secs(10),
        waiting: Duration::from_secs(1),
        answer: Duration::from_secs(3),
        grain: Duration::ZERO,
    };
    /// The same within 4 s and 15 s; later than the agent when idle, whose probes then spare it its own.
    pub(crate) const GATEWAY: Self = Self {
        idle: Duration::from_millis(11_500),
        waiting: Duration::from_secs(1),
        answer: Duration::from_secs(3),
        grain: Duration::from_millis(500),
    };
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing until then.
    WaitUntil(Duration),
    /// Send a probe, then ask again.
    Probe,
    /// The peer is gone.
    Dead,
}

/// The state of one connection's liveness; all times are since the session's start.
#[derive(Debug)]
pub(crate) struct Keepalive {
    patience: Patience,
    heard: Duration,
    /// When the oldest thing that is still unanswered was sent.
    unanswered: Option<Duration>,
    probed: Option<Duration>,
    /// Bytes heard since this side last said anything, and since when they are enough to say something: a peer that
    /// sends much over a slow link would take the silence for a dead link while its probe waits behind its data.
    unacknowledged: usize,
    owes: Option<Duration>,
    /// When this wants to be asked again.
    due: Option<Duration>,
}

impl Keepalive {
    pub(crate) const fn new(patience: Patience) -> Self {
        Self {
            patience,
            heard: Duration::ZERO,
            unanswered: None,
            probed: None,
            unacknowledged: 0,
            owes: None,
            due: None,
        }
    }

    /// So many bytes arrived.
    pub(crate) fn heard(&mut self, now: Duration, bytes: usize) {
        self.heard = now;
        self.unanswered = None;
        self.probed = None;
        self.unacknowledged = self.unacknowledged.saturating_add(bytes);
        if self.unacknowledged > OWED_FROM {
            self.owes.get_or_insert(now);
        }
    }

    /// Bytes are on their way to the peer, whatever they are.
    pub(crate) const fn said(&mut self) {
        self.unacknowledged = 0;
        self.owes = None;
    }

    /// Bytes were sent that the peer would normally answer.
    pub(crate) fn sent(&mut self, now: Duration) {
        self.unanswered.get_or_insert(now);
    }

    /// Whether something that was sent is unanswered.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.unanswered.is_some()
    }

    /// How much later than wanted it may be asked again.
    pub(crate) const fn grain(&self) -> Duration {
        let is_idle = self.unanswered.is_none() && self.owes.is_none() && self.probed.is_none();
        if is_idle { self.patience.grain } else { Duration::ZERO }
    }

    /// A probe was sent.
    pub(crate) const fn probed(&mut self, now: Duration) {
        self.probed = Some(now);
        self.said();
    }

    pub(crate) fn poll(&mut self, now: Duration) -> Action {
        let late = self.due.take().map_or(Duration::ZERO, |due| now.saturating_sub(due));
        if late > STOOD_STILL {
            // Whatever the peer said meanwhile is yet to be read: the silence was this side's.
            self.probed = self.probed.map(|_| now);
        }
        let action = self.next(now);
        if let Action::WaitUntil(then) = action {
            self.due = Some(then);
        }
        action
    }

    fn next(&self, now: Duration) -> Action {
        if let Some(probed) = self.probed {
            let deadline = probed + self.patience.answer;
            return if now >= deadline { Action::Dead } else { Action::WaitUntil(deadline) };
        }
        let idle = self.heard + self.patience.idle;
        let waits = [self.unanswered, self.owes].into_iter().flatten().min();
        let due = waits.map_or(idle, |since| idle.min(since + self.patience.waiting));
        if now >= due { Action::Probe } else { Action::WaitUntil(due) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// Runs the state machine against a peer that answers nothing from `silent_from` on.
    fn dies_at(patience: Patience, silent_from: Duration, send_at: Option<Duration>) -> Duration {
        let mut keepalive = Keepalive::new(patience);
        let mut now = Duration::ZERO;
        let mut send_at = send_at;
        loop {
            if send_at.is_some_and(|at| now >= at) {
                keepalive.sent(now);
                send_at = None;
            }
            match keepalive.poll(now) {
                Action::Dead => return now,
                Action::Probe => {
                    keepalive.probed(now);
                    if now < silent_from {
                        keepalive.heard(now, 16);
                    }
                }
                Action::WaitUntil(then) => now = send_at.map_or(then, |at| at.min(then)),
            }
        }
    }

    #[test]
    fn an_idle_dead_link_is_known_within_15_seconds_of_the_last_byte() {
        for patience in [Patience::AGENT, Patience::GATEWAY] {
            for silent_from in [s(1), s(35), s(121)] {
                let died = dies_at(patience, silent_from, None);
                assert!(died > silent_from && died <= silent_from + s(15), "{died:?}");
            }
        }
    }

    #[test]
    fn a_dead_link_is_known_within_4_seconds_of_an_unanswered_write() {
        for patience in [Patience::AGENT, Patience::GATEWAY] {
            let died = dies_at(patience, s(5), Some(s(6)));
            assert!(died <= s(10), "{died:?}");
        }
    }

    #[test]
    fn a_process_that_stood_still_does_not_take_that_for_silence_of_the_peer() {
        let mut keepalive = Keepalive::new(Patience::AGENT);
        assert_eq!(keepalive.poll(s(10)), Action::Probe);
        keepalive.probed(s(10));
        assert_eq!(keepalive.poll(s(10)), Action::WaitUntil(s(13)));
        // Stopped for an hour: the answer has its time all the same, from now.
        assert_eq!(keepalive.poll(s(3613)), Action::WaitUntil(s(3616)));
        assert_eq!(keepalive.poll(s(3616)), Action::Dead);
    }

    #[test]
    fn whoever_is_sent_much_says_something_every_second_and_an_idle_session_is_not_kept_talking() {
        let mut keepalive = Keepalive::new(Patience::AGENT);
        keepalive.heard(s(1), 1000);
        assert_eq!(keepalive.poll(s(1)), Action::WaitUntil(s(2)));
        keepalive.heard(s(2), 1000);
        assert_eq!(keepalive.poll(s(2)), Action::Probe);
        keepalive.probed(s(2));
        keepalive.heard(s(3), 16);
        assert_eq!(keepalive.poll(s(3)), Action::WaitUntil(s(13)));
    }

    #[test]
    fn a_link_that_answers_never_dies_and_is_not_probed_while_it_talks() {
        let mut keepalive = Keepalive::new(Patience::AGENT);
        for second in 0..1000 {
            keepalive.heard(s(second), 1000);
            keepalive.said();
            keepalive.sent(s(second));
            assert!(matches!(keepalive.poll(s(second)), Action::WaitUntil(_)));
        }
    }
}
