//! One connected agent, from its registration to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_control::model::{SecretText, Timestamp};
use adit_control::{Snapshot, Who};
use adit_proto::handshake::Offer;
use adit_proto::name::Name;
use adit_proto::names::{InstanceId, ServiceName};
use adit_proto::reason::Reason;
use adit_tunnel::session::Session;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::services::Service;
use super::{SUCCESSION, Sessions};
use crate::balancer::Endpoint;
use crate::canary;
use crate::grants::Tag;
use crate::live::Live;
use crate::observe::{Carrier, Observe};
use crate::tcp::ports::{Claim, Ports};

/// What an agent has shown, which has to hold for as long as its session stands.
#[derive(Debug, Clone)]
pub(crate) enum Shown {
    /// This secret of the token.
    Token(SecretText),
    /// The certificate with this serial number, which ends then.
    Certificate {
        /// Its serial number.
        serial: String,
        /// Its end.
        until: Timestamp,
    },
}

/// One connected agent.
#[derive(Debug)]
pub(crate) struct AgentSession {
    pub(crate) instance: InstanceId,
    pub(super) generation: u64,
    /// Who it is.
    pub(crate) who: Who,
    pub(super) shown: Mutex<Shown>,
    pub(crate) remote: SocketAddr,
    pub(crate) carrier: Carrier,
    pub(crate) since: SystemTime,
    pub(crate) release: String,
    pub(crate) hostname: String,
    pub(crate) session: Session,
    /// Capabilities it was granted.
    pub(super) granted: u64,
    /// Cancelled when the agent has another session, and this one only finishes what it carries.
    pub(super) succeeded: CancellationToken,
    pub(super) answers_canaries: bool,
    pub(super) offers_tcp: bool,
    pub(super) bound: Mutex<Bindings>,
    /// When the last canary was back or lost, and which.
    pub(super) canary: Mutex<Option<(Instant, bool)>>,
}

/// What an agent offers and what became of it.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    pub(super) list: Vec<Binding>,
    /// The session takes no more: nothing is bound any more.
    pub(super) is_withdrawn: bool,
}

/// One offer.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) offer: Offer,
    /// What it is an endpoint of, unless it is not permitted.
    pub(super) endpoint: Option<(Arc<Service>, Arc<Endpoint>)>,
    /// What keeps its TCP port bound.
    pub(super) claim: Option<Claim>,
    /// Why its TCP port could not be had, as the log said last.
    pub(super) unclaimed: Option<String>,
}

impl Binding {
    fn leave(&mut self) {
        if let Some((service, endpoint)) = self.endpoint.take() {
            service.leave(&endpoint);
        }
        self.claim = None;
    }
}

impl AgentSession {
    /// The name of whoever it is.
    pub(crate) fn identity(&self) -> &str {
        self.who.name().map_or("public", Name::as_str)
    }

    /// How that is known.
    pub(crate) const fn identity_kind(&self) -> &'static str {
        match self.who {
            Who::Identity(_) => "certificate",
            Who::Public | Who::Token(_) => "token",
        }
    }

    /// What it offers and may offer.
    pub(crate) fn offers(&self) -> Vec<Offer> {
        let bound = self.bound.lock();
        let taken = bound.list.iter().filter(|binding| binding.endpoint.is_some() || bound.is_withdrawn);
        taken.map(|binding| binding.offer.clone()).collect()
    }

    /// Whether any of it is reached by a host.
    pub(crate) fn offers_hosts(&self) -> bool {
        self.offers().iter().any(|offer| matches!(offer.service, ServiceName::Host(_)))
    }

    /// What it is an endpoint of, with what stands behind it.
    pub(crate) fn served(&self) -> Vec<(ServiceName, String)> {
        let bound = self.bound.lock();
        let served = bound.list.iter().filter_map(|binding| {
            let (service, _) = binding.endpoint.as_ref()?;
            Some((service.name.clone(), binding.offer.upstream.clone()))
        });
        served.collect()
    }

    /// How long ago its last canary was, and whether that came back.
    pub(crate) fn last_canary(&self) -> Option<(Duration, bool)> {
        self.canary.lock().map(|(at, ok)| (at.elapsed(), ok))
    }

    /// The same identity has shown something on another connection.
    pub(super) fn now_shows(&self, newer: Shown) {
        let mut shown = self.shown.lock();
        if let (Shown::Certificate { until: old, .. }, Shown::Certificate { until: new, .. }) =
            (&*shown, &newer)
            && new > old
        {
            *shown = newer;
        }
    }

    /// Takes this session's endpoints out of balancing; their idle streams are closed, and ports that nobody else
    /// offers are free again.
    pub(crate) fn withdraw(&self) {
        let mut bound = self.bound.lock();
        bound.is_withdrawn = true;
        bound.list.iter_mut().for_each(Binding::leave);
    }

    pub(super) fn sweep(&self, max_idle: Duration) {
        let endpoints: Vec<_> = {
            let bound = self.bound.lock();
            bound.list.iter().filter_map(|it| it.endpoint.as_ref()).map(|it| Arc::clone(&it.1)).collect()
        };
        for endpoint in endpoints {
            endpoint.sweep(max_idle);
        }
    }

    /// Whether what it has shown still opens a session. A certificate that has ended meanwhile is no reason to end what
    /// stands; one that was taken back is.
    fn is_admissible(&self, snapshot: &Snapshot, now: Timestamp) -> bool {
        let listed = match (&self.who, &*self.shown.lock()) {
            (Who::Token(name), Shown::Token(secret)) => snapshot
                .secrets_of(name)
                .iter()
                .any(|token| token.secret == *secret && token.not_after.is_none_or(|end| now < end)),
            (Who::Identity(name), Shown::Certificate { serial, until }) => {
                now >= *until || snapshot.credential(name.folded(), serial, 0).is_some()
            }
            _ => false,
        };
        listed && snapshot.exists(&self.who)
    }

    /// Decides about the session and each of its offers by a newer snapshot. Returns how many streams it has ended.
    pub(super) fn reconsider(
        &self,
        sessions: &Sessions,
        snapshot: &Snapshot,
        ports: &Ports,
        now: Timestamp,
    ) -> usize {
        let who = &self.who;
        if !self.is_admissible(snapshot, now) {
            tracing::warn!(agent = %self.instance, identity = %who, "a session is revoked: its credential does not hold any more");
            return self.revoke(sessions);
        }
        let (mut ended, mut is_idle) = (0, self.granted == 0);
        let mut bound = self.bound.lock();
        if bound.is_withdrawn {
            return 0;
        }
        for (binding, number) in bound.list.iter_mut().zip(1..) {
            let decided = adit_control::authorize_offer(snapshot, who, &binding.offer.service);
            // What a policy permits is no reason to end the session, even where the gateway does not take it for now:
            // what is open goes on.
            is_idle &= decided.is_err();
            let served_as = decided.as_ref().ok().map(|permit| permit.served_as());
            if let Some(port) = served_as.and_then(ServiceName::tcp_port).filter(|port| !ports.allows(*port))
            {
                if binding.endpoint.is_some() {
                    tracing::warn!(agent = %self.instance, identity = %who, port, "an offer is let go: the gateway does not take TCP services on this port any more");
                    binding.leave();
                }
                continue;
            }
            if served_as == binding.endpoint.as_ref().map(|(service, _)| &service.name) {
                continue;
            }
            let was_bound = binding.endpoint.is_some();
            binding.leave();
            let service = &binding.offer.service;
            match decided {
                Ok(permit) => {
                    if sessions.bind(self, binding, number, permit.served_as(), ports) {
                        let service = &binding.offer.service;
                        tracing::info!(agent = %self.instance, identity = %who, offer = %service, served_as = %permit.served_as(), "an offer is permitted");
                    }
                }
                Err(denial) if was_bound => {
                    tracing::warn!(agent = %self.instance, identity = %who, offer = %service, "an offer is revoked: {}", denial.message(snapshot));
                    sessions.observe.revoked("offer", 1);
                    ended += self.session.reset_tagged(|tag| Tag::from(tag).offer == number, Reason::Revoked);
                }
                Err(_as_before) => {}
            }
        }
        drop(bound);
        if is_idle { ended + self.revoke(sessions) } else { ended }
    }

    fn revoke(&self, sessions: &Sessions) -> usize {
        let streams = self.session.streams();
        sessions.observe.revoked("session", 1);
        self.withdraw();
        self.session.close(Reason::Revoked);
        streams
    }

    /// Lets the session's life take its course: ends when it has ended. One that has a successor is closed as soon as
    /// it carries nothing any more, and at the latest when the time of a drain has passed. One that carries no canary any more is given
    /// up: its agent is asked for another, and whatever still moves in this one may finish.
    pub(crate) async fn live(&self, live: &Live, observe: &Observe) {
        let session = &self.session;
        tokio::select! {
            _reason = session.draining() => {}
            () = self.succeeded.cancelled() => {}
            () = self.canaries(observe) => {
                tracing::warn!(agent = %self.instance, "the session carries nothing although it stands; replacing it");
                session.announce(Reason::CanaryLost);
                self.withdraw();
                if tokio::time::timeout(SUCCESSION, self.succeeded.cancelled()).await.is_err() {
                    session.close(Reason::CanaryLost);
                }
            }
        }
        // It finishes what it has; nothing new goes there, and idle streams are let go.
        self.withdraw();
        tokio::select! {
            _reason = session.closed() => {}
            () = self.succeeded.cancelled() => {
                drop(tokio::time::timeout(live.drain_timeout(), session.drain(Reason::Replaced)).await);
                session.close(Reason::Replaced);
            }
        }
        session.closed().await;
    }
}

impl AgentSession {
    /// Ends when the agent has been asked in vain; never for one that does not answer canaries by its own word.
    async fn canaries(&self, observe: &Observe) {
        if !self.answers_canaries {
            return std::future::pending().await;
        }
        let seed =
            self.instance.as_bytes().iter().fold(self.generation, |seed, byte| seed << 4 ^ u64::from(*byte));
        canary::watch(&self.session, seed, |outcome| {
            *self.canary.lock() = Some((Instant::now(), outcome.is_ok()));
            observe.canary(outcome);
        })
        .await;
    }
}
