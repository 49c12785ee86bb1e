//! Small streams of the gateway's own, through every session to its agent and back: a link that answers probes may
//! still carry nothing. Rare while idle, and spread in time, so that they are no load worth naming.

use std::time::Duration;

use adit_proto::header::StreamHeader;
use adit_proto::names::canary;
use adit_proto::reason::Reason;
use adit_tunnel::session::Session;
use adit_tunnel::workers;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

/// Pause between two canaries of a session that carries nothing.
const IDLE: Duration = Duration::from_millis(29_900);
/// By how much the canaries of idle sessions may be late.
const GRAIN: Duration = Duration::from_millis(100);
/// The same of one that carries something, and after a canary that failed.
const BUSY: Duration = Duration::from_secs(5);
/// How long the first one waits at most: agents that come back together need not be asked together.
const FIRST: Duration = Duration::from_secs(2);
/// How long a canary may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many failures in a row, and the session is given up.
const FAILURES: u32 = 2;
/// What travels.
const SONG: &[u8] = b"canary";

/// Sends canaries for as long as they come back. Returns when the session is of no use any more, though it may stand;
/// `result` hears of each: its round trip, or why there is none. Cancel safe. `seed` spreads sessions in time.
pub(crate) async fn watch(session: &Session, seed: u64, mut result: impl FnMut(Result<Duration, Reason>)) {
    let mut spread = Spread(seed | 1);
    let mut pause = FIRST.mul_f64(spread.next());
    let mut failed = 0;
    // Agents that came back together are spread over the whole of the first pause, and stay so.
    let mut least = 0.2;
    while failed < FAILURES {
        let at = Instant::now() + pause;
        // Those that have time go together.
        let grain = if pause > BUSY { GRAIN } else { Duration::ZERO };
        tokio::time::sleep_until(workers::together(at, grain)).await;
        let outcome = send(session).await;
        failed = if outcome.is_ok() { 0 } else { failed + 1 };
        result(outcome);
        if session.end().is_some() || session.is_leaving() {
            return std::future::pending().await;
        }
        let ceiling = if failed > 0 || session.streams() > 0 { BUSY } else { IDLE };
        pause = ceiling.mul_f64(spread.next().mul_add(1.0 - least, least));
        least = 0.9;
    }
}

/// One canary there and back.
async fn send(session: &Session) -> Result<Duration, Reason> {
    let begun = Instant::now();
    let flight = async {
        let header = StreamHeader { service: canary(), client_addr: None, connect_timeout: PATIENCE };
        let mut stream = session.open(&header)?;
        let watch = stream.watch();
        let lost = |_error| watch.end().unwrap_or(Reason::AgentLost);
        stream.write_all(SONG).await.map_err(lost)?;
        stream.shutdown().await.map_err(lost)?;
        let mut heard = [0; SONG.len()];
        stream.read_exact(&mut heard).await.map_err(lost)?;
        if heard == SONG { Ok(begun.elapsed()) } else { Err(Reason::ProtocolError) }
    };
    // On the heap for its short life: a session that waits for the next one should be small.
    tokio::time::timeout(PATIENCE, Box::pin(flight)).await.unwrap_or(Err(Reason::SessionTimeout))
}

/// Numbers in [0, 1) by xorshift64*; they need spread, not secrecy.
struct Spread(u64);

impl Spread {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = u32::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32).unwrap_or(0);
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use adit_tunnel::scope::Scope;
    use adit_tunnel::session::Side;

    use super::*;

    fn pair(scope: &Scope) -> (Session, Session) {
        let (a, b) = tokio::io::duplex(4096);
        (Session::start(a, Side::Gateway, scope), Session::start(b, Side::Agent, scope))
    }

    #[tokio::test(start_paused = true)]
    async fn canaries_that_come_back_go_on_and_are_rare() {
        let scope = Scope::new();
        let (gateway, agent) = pair(&scope);
        scope.spawn("agent", async move {
            while let Some((header, mut stream)) = agent.accept().await {
                assert_eq!(header.service, canary());
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).await.unwrap();
                stream.write_all(&heard).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        let mut sent = 0;
        let watching = watch(&gateway, 7, |outcome| {
            assert!(outcome.is_ok(), "{outcome:?}");
            sent += 1;
        });
        assert!(tokio::time::timeout(Duration::from_secs(3600), watching).await.is_err());
        assert!((119..=136).contains(&sent), "{sent} in an hour");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_answers_probes_and_carries_nothing_is_given_up_after_the_second_canary() {
        let scope = Scope::new();
        let (gateway, _agent) = pair(&scope);
        let (begun, mut outcomes) = (Instant::now(), Vec::new());
        watch(&gateway, 7, |outcome| outcomes.push(outcome)).await;
        assert_eq!(outcomes, [Err(Reason::SessionTimeout); 2]);
        assert!(begun.elapsed() < FIRST + BUSY + PATIENCE * 2, "{:?}", begun.elapsed());
        assert_eq!(gateway.end(), None, "the connection itself is well");
    }
}
