//! Keeps an identity's certificate from ending: another one at two thirds of its life, over mutual TLS with the old
//! one. Sessions that stand are not touched; the next lanes and sessions show the new certificate.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_telemetry::timestamp::moment;
use adit_tunnel::identity::LiveIdentity;
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
    #[expect(clippy::infinite_loop, reason = "ends with its scope")]
    pub async fn run(self) {
        let mut failures = 0_u32;
        let mut told_expired = false;
        loop {
            let leaf = self.identity.file().leaf().clone();
            self.figures.expires(leaf.not_after);
            let spread = f64::from(u16::from_be_bytes([random(), random()])) / f64::from(u16::MAX);
            let due = due(leaf.not_before, leaf.not_after, spread);
            wait_until(due).await;
            match self.renew().await {
                Ok(()) => {
                    (failures, told_expired) = (0, false);
                    self.figures.renewed("ok");
                    let leaf = self.identity.file().leaf().clone();
                    let until = moment(SystemTime::UNIX_EPOCH + Duration::from_secs(leaf.not_after));
                    tracing::info!(identity = %leaf.name, serial = %leaf.serial, until, "renewed the certificate");
                }
                Err(failure) => {
                    self.report(&leaf.name, leaf.not_after, &failure, &mut told_expired);
                    failures = failures.saturating_add(1);
                }
            }
            // Also after a success: a gateway that gives certificates which are due at once is not asked all the time.
            tokio::time::sleep(pause(failures.saturating_sub(1), spread)).await;
        }
    }

    fn report(&self, identity: &str, not_after: u64, failure: &Failure, told_expired: &mut bool) {
        self.figures.renewed(failure.label);
        let left = not_after.saturating_sub(seconds(SystemTime::now()));
        let error = &failure.text;
        if left > 0 {
            tracing::warn!(identity, minutes_left = left / 60, %error, "cannot renew the certificate yet");
        } else if !std::mem::replace(told_expired, true) {
            tracing::error!(
                identity,
                %error,
                "the certificate has expired, and no gateway takes it any more; ask for a new invitation and run \
                 `adit enroll`"
            );
        }
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

async fn wait_until(due: SystemTime) {
    while let Ok(left) = due.duration_since(SystemTime::now()) {
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
    use super::*;

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_give_or_take_a_little() {
        let at = |spread| seconds(due(1000, 4000, spread)) - 1000;
        assert_eq!((at(0.0), at(0.5), at(1.0)), (1900, 2000, 2100));
    }

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let pauses: Vec<u64> = [0, 1, 2, 6, 99].map(|failures| pause(failures, 1.0).as_secs()).to_vec();
        assert_eq!(pauses, [5, 10, 20, 300, 300]);
        assert!(pause(0, 0.0) >= Duration::from_millis(2500));
    }
}
