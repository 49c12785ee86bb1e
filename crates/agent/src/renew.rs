//! Keeps an identity's certificate from ending: another one at two thirds of its life, over mutual TLS with the old
//! one. Sessions that stand are not touched; the next lanes and sessions show the new certificate.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_telemetry::timestamp::moment;
use adit_tunnel::identity::{Leaf, LiveIdentity};
use adit_tunnel::proxy::Egress;
use adit_tunnel::tls;
use serde::Serialize;

use crate::enroll::call::{self, Address};
use crate::enroll::{self, Request, seconds};
use crate::observe::CredentialFigures;

/// The longest sleep: a machine may be asleep meanwhile, or its clock be set.
const NAP: Duration = Duration::from_secs(60);
/// The first pause after a failure, doubled with each, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

#[derive(Serialize)]
struct Body<'a> {
    csr: &'a str,
}

/// Renews one identity for as long as it runs.
#[derive(Debug)]
pub struct Renewal {
    identity: Arc<LiveIdentity>,
    egress: Egress,
    others: Vec<String>,
    figures: CredentialFigures,
}

impl Renewal {
    /// For this identity. `others` are `https://host:port` to ask where the gateway that its file names cannot be
    /// reached.
    #[must_use]
    pub fn new(identity: Arc<LiveIdentity>, egress: Egress, others: Vec<String>) -> Self {
        Self { identity, egress, others, figures: CredentialFigures::default() }
    }

    /// Counts here.
    pub(crate) fn counting(self, figures: CredentialFigures) -> Self {
        Self { figures, ..self }
    }

    /// Runs until it is dropped. Cancel safe: a certificate that was on its way is listed and never used.
    pub async fn run(self) {
        keep(&self, SystemTime::now).await;
    }

    /// Renews now. Not cancel safe: what was given may be lost.
    ///
    /// # Errors
    /// No gateway could be asked, or it refused. The certificate that was there is still in use.
    pub async fn renew(&self) -> Result<(), Failure> {
        let old = self.identity.file();
        let request = Request::new().map_err(|error| Failure::new("key", &error))?;
        let mut failure = Failure { label: "address", text: "its file names no gateway".to_owned() };
        for text in std::iter::once(old.api()).chain(self.others.iter().map(String::as_str)) {
            let Some(address) = Address::parse(text) else { continue };
            let tls = tls::session_client_with(&self.identity, &[b"http/1.1"])
                .map_err(|error| Failure::new("tls", &error))?;
            match call::post(&address, &self.egress, Ok(tls), "/v1/renew", &Body { csr: &request.csr }).await
            {
                Ok(answer) => {
                    let file = enroll::renewed(&old, &address, &answer, &request)
                        .map_err(|error| Failure::new("refused", &error))?;
                    if let Some(path) = self.identity.path()
                        && let Err(error) = file.save(path)
                    {
                        // What is in memory is good all the same; only a restart would have the old one.
                        self.figures.renewed("unsaved");
                        tracing::error!(file = %path.display(), error = %chain(&error), "cannot keep the renewed certificate");
                    }
                    return self.identity.exchange(file).map_err(|error| Failure::new("refused", &error));
                }
                Err(error) => failure = Failure::new("unreachable", &error),
            }
        }
        Err(failure)
    }
}

/// What is kept from ending, and how it is said.
trait Renewable {
    /// The certificate that is in use.
    fn leaf(&self) -> Leaf;
    async fn try_renew(&self) -> Result<(), Failure>;
    fn tell(&self, leaf: &Leaf, news: News<'_>);
}

/// What there is to say of a certificate.
#[derive(Debug)]
enum News<'a> {
    InUse,
    Renewed,
    /// It could not be renewed, and has so long.
    NotYet(&'a Failure, Duration),
    /// The same, and it has ended; told once.
    Expired(&'a Failure),
    /// The same, and was told before.
    StillExpired(&'a Failure),
}

impl Renewable for Renewal {
    fn leaf(&self) -> Leaf {
        self.identity.file().leaf().clone()
    }

    async fn try_renew(&self) -> Result<(), Failure> {
        self.renew().await
    }

    fn tell(&self, leaf: &Leaf, news: News<'_>) {
        let Leaf { name: identity, serial, not_after, .. } = leaf;
        match news {
            News::InUse => self.figures.expires(*not_after),
            News::Renewed => {
                self.figures.renewed("ok");
                let until = moment(SystemTime::UNIX_EPOCH + Duration::from_secs(*not_after));
                tracing::info!(%identity, %serial, until, "renewed the certificate");
            }
            News::NotYet(Failure { label, text: error }, left) => {
                self.figures.renewed(label);
                let minutes_left = left.as_secs() / 60;
                tracing::warn!(%identity, minutes_left, %error, "cannot renew the certificate yet");
            }
            News::Expired(Failure { label, text: error }) => {
                self.figures.renewed(label);
                tracing::error!(
                    %identity,
                    %error,
                    "the certificate has expired, and no gateway takes it any more; ask for a new invitation and run \
                     `adit enroll`"
                );
            }
            News::StillExpired(failure) => self.figures.renewed(failure.label),
        }
    }
}

/// Renews when it is time, for ever. `now` says what time it is.
#[expect(clippy::infinite_loop, reason = "ends with its scope")]
async fn keep(kept: &impl Renewable, now: impl Fn() -> SystemTime) {
    let mut failures = 0_u32;
    let mut told_expired = false;
    let (mut known, mut spread) = (String::new(), 0.5);
    loop {
        let leaf = kept.leaf();
        kept.tell(&leaf, News::InUse);
        // Once for each certificate: else who has failed might wait for a later moment than the one that has come.
        if known != leaf.serial {
            known.clone_from(&leaf.serial);
            spread = f64::from(u16::from_be_bytes([random(), random()])) / f64::from(u16::MAX);
        }
        wait_until(due(leaf.not_before, leaf.not_after, spread), &now).await;
        match kept.try_renew().await {
            Ok(()) => {
                (failures, told_expired) = (0, false);
                kept.tell(&kept.leaf(), News::Renewed);
            }
            Err(failure) => {
                let left = Duration::from_secs(leaf.not_after.saturating_sub(seconds(now())));
                let news = match left {
                    Duration::ZERO if std::mem::replace(&mut told_expired, true) => {
                        News::StillExpired(&failure)
                    }
                    Duration::ZERO => News::Expired(&failure),
                    left => News::NotYet(&failure, left),
                };
                kept.tell(&leaf, news);
                failures = failures.saturating_add(1);
            }
        }
        // Also after a success: a gateway that gives certificates which are due at once is not asked all the time.
        tokio::time::sleep(pause(failures.saturating_sub(1), spread)).await;
    }
}

/// Why there is no other certificate yet.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// A word from a closed list, for the metric.
    label: &'static str,
    text: String,
}

impl Failure {
    fn new(label: &'static str, error: &dyn std::error::Error) -> Self {
        Self { label, text: chain(error) }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// At two thirds of a life, give or take a thirtieth of it, so that many that began together do not renew together.
/// `spread` is between 0 and 1.
fn due(not_before: u64, not_after: u64, spread: f64) -> SystemTime {
    let life = Duration::from_secs(not_after.saturating_sub(not_before));
    let share = 2.0 / 3.0 + (spread - 0.5) / 15.0;
    SystemTime::UNIX_EPOCH + Duration::from_secs(not_before) + life.mul_f64(share)
}

async fn wait_until(due: SystemTime, now: impl Fn() -> SystemTime) {
    // At the very moment nothing is left, and no time would pass.
    while let Some(left) = due.duration_since(now()).ok().filter(|left| !left.is_zero()) {
        tokio::time::sleep(left.min(NAP)).await;
    }
}

fn pause(failures: u32, spread: f64) -> Duration {
    let full = PAUSES.0.saturating_mul(1 << failures.min(10)).min(PAUSES.1);
    full.mul_f64(0.5 + spread / 2.0)
}

fn random() -> u8 {
    let mut byte = [0];
    // Without random numbers everybody renews at the same share of their life, which harms nobody here.
    if aws_lc_rs::rand::fill(&mut byte).is_err() {
        byte = [128];
    }
    byte[0]
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::ops::Range;

    use super::*;

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_give_or_take_a_little() {
        let at = |spread| seconds(due(1000, 4000, spread)) - 1000;
        assert_eq!((at(0.0), at(0.5), at(1.0)), (1900, 2000, 2100));
    }

    const HOUR: u64 = 3600;
    const LIFE: u64 = 24 * HOUR;
    const BEGIN: u64 = 1_800_000_000;

    /// An identity whose gateway is there or not, in a time of its own.
    struct Simulated {
        started: tokio::time::Instant,
        not_before: Cell<u64>,
        /// From when to when nobody answers, in seconds since the beginning.
        away: Range<u64>,
        renewed: RefCell<Vec<u64>>,
        refused: RefCell<Vec<u64>>,
        told_expired: Cell<u32>,
        still_expired: Cell<u32>,
    }

    impl Simulated {
        /// Lives for so many days.
        async fn live(days: u32, away: Range<u64>) -> Self {
            let simulated = Self {
                started: tokio::time::Instant::now(),
                not_before: Cell::new(0),
                away,
                renewed: RefCell::default(),
                refused: RefCell::default(),
                told_expired: Cell::new(0),
                still_expired: Cell::new(0),
            };
            let now = || SystemTime::UNIX_EPOCH + Duration::from_secs(BEGIN) + simulated.started.elapsed();
            let life = keep(&simulated, now);
            assert!(tokio::time::timeout(Duration::from_secs(LIFE) * days, life).await.is_err());
            simulated
        }

        fn now(&self) -> u64 {
            self.started.elapsed().as_secs()
        }
    }

    impl Renewable for Simulated {
        fn leaf(&self) -> Leaf {
            let not_before = BEGIN + self.not_before.get();
            let (name, serial) = ("alice".to_owned(), not_before.to_string());
            Leaf { name, serial, not_before, not_after: not_before + LIFE }
        }

        async fn try_renew(&self) -> Result<(), Failure> {
            let now = self.now();
            if self.away.contains(&now) {
                self.refused.borrow_mut().push(now);
                return Err(Failure { label: "unreachable", text: "nobody answers".to_owned() });
            }
            self.renewed.borrow_mut().push(now);
            self.not_before.set(now);
            Ok(())
        }

        fn tell(&self, leaf: &Leaf, news: News<'_>) {
            let has_ended = BEGIN + self.now() >= leaf.not_after;
            match news {
                News::InUse | News::Renewed => {}
                News::NotYet(_, left) => {
                    assert!(!has_ended && left.as_secs() <= LIFE / 3 + LIFE / 30 + 1, "{left:?}");
                }
                News::Expired(_) => self.told_expired.set(self.told_expired.get() + u32::from(has_ended)),
                News::StillExpired(_) => self.still_expired.set(self.still_expired.get() + 1),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn for_a_month_each_certificate_is_renewed_once_at_two_thirds_of_its_life() {
        let month = Simulated::live(30, 0..0).await;
        let renewed = month.renewed.borrow();
        assert!((42..=48).contains(&renewed.len()), "{renewed:?}");
        let since = std::iter::once(&0).chain(renewed.iter());
        for (before, after) in since.zip(renewed.iter()) {
            let share = (after - before) as f64 / LIFE as f64;
            assert!((0.63..=0.71).contains(&share), "after {share} of a life");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_is_away_for_a_while_is_asked_again_in_time_and_not_all_the_time() {
        // From before the first certificate is due until shortly before it ends.
        let back = LIFE - 30 * 60;
        let simulated = Simulated::live(2, HOUR..back).await;
        let refused = simulated.refused.borrow();
        // Six and a half to eight and a half hours, at pauses of two and a half to five minutes.
        assert!((80..=220).contains(&refused.len()), "asked {} times in vain", refused.len());
        for pair in refused.windows(2) {
            assert!((2..=301).contains(&(pair[1] - pair[0])), "asked at {} and at {}", pair[0], pair[1]);
        }
        let first = simulated.renewed.borrow()[0];
        assert!((back..=back + 301).contains(&first), "renewed at {first}, {back} was possible");
        assert_eq!((simulated.told_expired.get(), simulated.still_expired.get()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn that_a_certificate_has_expired_is_told_once_and_one_that_is_given_all_the_same_is_taken() {
        let simulated = Simulated::live(3, HOUR..2 * LIFE).await;
        assert_eq!(simulated.told_expired.get(), 1);
        assert!(simulated.still_expired.get() > 100, "it goes on asking: a clock may have been wrong");
        let first = simulated.renewed.borrow()[0];
        assert!((2 * LIFE..=2 * LIFE + 301).contains(&first), "{first}");
    }

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let pauses: Vec<u64> = [0, 1, 2, 6, 99].map(|failures| pause(failures, 1.0).as_secs()).to_vec();
        assert_eq!(pauses, [5, 10, 20, 300, 300]);
        assert!(pause(0, 0.0) >= Duration::from_millis(2500));
    }
}
