//! How the configuration stands: whether the last reload was taken, when, and which file is in force; and where one is
//! asked for.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::{mpsc, oneshot};

use crate::families::{COMMON, help};
use crate::metrics::Metrics;

/// Told of every configuration that is read, and asked for another reading. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Reloads(Arc<Mutex<State>>);

/// What became of a reload that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The file was read and is in force, except for these keys, which take effect only after a restart.
    Taken(Vec<String>),
    /// The file was refused, with what is wrong, for people. The one before stays in force.
    Refused(String),
    /// There is no file: the process was started from flags alone.
    NoFile,
}

/// Somebody waits for a reload.
#[derive(Debug)]
pub struct Request(oneshot::Sender<Answer>);

impl Request {
    /// Tells what became of it. Nobody may be waiting any more.
    pub fn answer(self, answer: Answer) {
        drop(self.0.send(answer));
    }
}

/// Reloads that may be asked for while one is on its way.
const WAITING: usize = 4;

#[derive(Debug, Clone, Default)]
struct State {
    hash: String,
    taken_at: u64,
    has_failed: bool,
    taken: u64,
    refused: u64,
    desk: Option<mpsc::Sender<Request>>,
}

impl Reloads {
    /// The process started with a file of this hash; empty for one that is configured by flags alone.
    pub fn started(&self, hash: &str, now: SystemTime) {
        let mut state = self.0.lock();
        hash.clone_into(&mut state.hash);
        state.taken_at = seconds(now);
    }

    /// A file of this hash has taken the place of the one before.
    pub fn reloaded(&self, hash: &str, now: SystemTime) {
        self.started(hash, now);
        let mut state = self.0.lock();
        state.has_failed = false;
        state.taken += 1;
    }

    /// A file was refused; the one before stays in force.
    pub fn refused(&self) {
        let mut state = self.0.lock();
        state.has_failed = true;
        state.refused += 1;
    }

    /// What is asked for from now on arrives here.
    #[must_use]
    pub fn requests(&self) -> mpsc::Receiver<Request> {
        let (desk, requests) = mpsc::channel(WAITING);
        self.0.lock().desk = Some(desk);
        requests
    }

    /// Asks for a reload and waits for what becomes of it. Cancel safe: it may happen all the same.
    pub async fn ask(&self) -> Answer {
        let (answer, answered) = oneshot::channel();
        let desk = self.0.lock().desk.clone();
        let Some(desk) = desk else { return Answer::NoFile };
        if desk.send(Request(answer)).await.is_err() {
            return Answer::Refused("the process is on its way out".to_owned());
        }
        answered.await.unwrap_or_else(|_gone| Answer::Refused("the process is on its way out".to_owned()))
    }

    /// Exposes it.
    pub fn register(&self, metrics: &Metrics) {
        metrics.register_collector(self.clone());
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Collector for Reloads {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let State { hash, taken_at, has_failed, taken, refused, desk: _ } = self.0.lock().clone();
        let mut gauge = |name: &'static str, value: i64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help(COMMON, name), None, MetricType::Gauge)?)
        };
        gauge("adit_config_last_reload_successful", i64::from(!has_failed))?;
        gauge(
            "adit_config_last_reload_success_timestamp_seconds",
            i64::try_from(taken_at).unwrap_or(i64::MAX),
        )?;
        let name = "adit_config_reloads_total";
        let mut family = encoder.encode_descriptor(
            name.trim_end_matches("_total"),
            help(COMMON, name),
            None,
            MetricType::Counter,
        )?;
        for (result, count) in [("taken", taken), ("refused", refused)] {
            ConstCounter::new(count).encode(family.encode_family(&[("result", result)])?)?;
        }
        let name = "adit_config_info";
        let mut family = encoder.encode_descriptor(name, help(COMMON, name), None, MetricType::Gauge)?;
        ConstGauge::new(1_i64).encode(family.encode_family(&[("hash", hash.as_str())])?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_asks_hears_what_became_of_it() {
        let reloads = Reloads::default();
        assert_eq!(reloads.ask().await, Answer::NoFile);
        let mut requests = reloads.requests();
        let role = async {
            requests.recv().await.unwrap().answer(Answer::Taken(vec!["key".to_owned()]));
            drop(requests.recv().await);
            drop(requests);
        };
        let asking = async {
            assert_eq!(reloads.ask().await, Answer::Taken(vec!["key".to_owned()]));
            assert!(matches!(reloads.ask().await, Answer::Refused(_)));
            assert!(matches!(reloads.ask().await, Answer::Refused(_)));
        };
        tokio::join!(role, asking);
    }

    #[test]
    fn a_refused_file_shows_until_the_next_one_is_taken() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let (metrics, health) = (Metrics::new(), Reloads::default());
        health.register(&metrics);
        let shows = |lines: &[&str]| {
            let text = metrics.render(None).body;
            for line in lines {
                assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
            }
        };
        health.started("aa", at(7));
        shows(&["adit_config_last_reload_successful 1", "adit_config_info{hash=\"aa\"} 1"]);
        health.refused();
        shows(&[
            "adit_config_last_reload_successful 0",
            "adit_config_info{hash=\"aa\"} 1",
            "adit_config_last_reload_success_timestamp_seconds 7",
            "adit_config_reloads_total{result=\"refused\"} 1",
        ]);
        health.reloaded("bb", at(9));
        shows(&[
            "adit_config_last_reload_successful 1",
            "adit_config_info{hash=\"bb\"} 1",
            "adit_config_last_reload_success_timestamp_seconds 9",
            "adit_config_reloads_total{result=\"taken\"} 1",
        ]);
    }
}
