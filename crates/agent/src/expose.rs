//! What happens to one stream: find the offer it is for, connect, relay. Nothing that was not offered is reached.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use adit_proto::handshake::Offer;
use adit_proto::header::StreamHeader;
use adit_proto::names::{ServiceName, canary};
use adit_proto::reason::Reason;
use adit_tunnel::relay::{Terms, relay};
use adit_tunnel::scope::Scope;
use adit_tunnel::session::{Session, Stream};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::Service;
use crate::observe::{Observe, ServiceCounters};
use crate::upstream::{Target, TargetError};

/// How long a half-open stream may stand still is the gateway's decision: it knows what the stream is for.
const TERMS: Terms = Terms { lost: Reason::UpstreamClosed, patience: None };

/// Streams served at once: as many as a gateway lets connections in. One that opens more is told so.
const MAX_STREAMS: usize = 64 * 1024;
/// Bytes of a canary that are brought back.
const MAX_SONG: u64 = 64;
/// How long a canary is held.
const SING_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the log says that something was asked for in vain.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Everything this agent offers, ready to be connected to.
pub(crate) struct Exposed {
    services: HashMap<ServiceName, Arc<Entry>>,
    offers: Vec<Offer>,
    /// Streams run here, so that a drain can wait for them after the session loop has stopped.
    scope: Scope,
    places: Arc<Semaphore>,
    /// When the log last said that something was asked for in vain, and how often that was since.
    vain: Mutex<(Option<Instant>, u64)>,
}

struct Entry {
    target: Target,
    counters: ServiceCounters,
}

impl Exposed {
    /// Loads what every upstream needs.
    pub(crate) fn prepare(
        services: &[Service],
        observe: &Observe,
        scope: Scope,
    ) -> Result<Self, (String, TargetError)> {
        let mut map = HashMap::new();
        let mut offers = Vec::new();
        for service in services {
            let Service { name, upstream } = service;
            let target = service
                .check()
                .map_err(TargetError::Unfit)
                .and_then(|()| Target::prepare(upstream))
                .map_err(|error| (format!("the upstream {upstream} of {name} cannot be used"), error))?;
            let label: Arc<str> = name.to_string().into();
            let counters = observe.service(&label);
            map.insert(name.clone(), Arc::new(Entry { target, counters }));
            offers.push(Offer { service: name.clone(), upstream: upstream.to_string() });
        }
        let places = Arc::new(Semaphore::new(MAX_STREAMS));
        Ok(Self { services: map, offers, scope, places, vain: Mutex::default() })
    }

    /// What to say in the hello.
    pub(crate) fn offers(&self) -> &[Offer] {
        &self.offers
    }

    /// Serves a session's streams until it ends. Cancel safe: streams already taken run on.
    /// `sung` is told of every canary that was answered.
    pub(crate) async fn serve(&self, session: &Session, sung: impl Fn()) {
        let canary = canary();
        while let Some((header, stream)) = session.accept().await {
            if header.service == canary {
                sung();
                self.scope.spawn("canary", sing(stream));
                continue;
            }
            let Some(entry) = self.services.get(&header.service) else {
                self.refuse(&header, &stream, Reason::NotOffered);
                continue;
            };
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                self.refuse(&header, &stream, Reason::Overloaded);
                continue;
            };
            let entry = Arc::clone(entry);
            let scope = self.scope.clone();
            self.scope.spawn("stream", async move {
                serve_stream(header, stream, &entry, &scope).await;
                drop(place);
            });
        }
    }

    /// Resets a stream; the log hears of it once a second at most, because a gateway can ask as fast as it likes.
    fn refuse(&self, header: &StreamHeader, stream: &Stream, reason: Reason) {
        stream.reset(reason);
        let mut vain = self.vain.lock();
        if vain.0.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            vain.1 += 1;
            return;
        }
        let suppressed = vain.1;
        *vain = (Some(Instant::now()), 0);
        drop(vain);
        let service = &header.service;
        tracing::warn!(%service, %reason, suppressed = (suppressed > 0).then_some(suppressed), "the gateway asked for a stream that it cannot have");
    }
}

/// Brings a canary back as it came. A few bytes, or none: nobody is served by this.
async fn sing(mut stream: Stream) {
    stream.confirm();
    let song = async {
        let mut heard = Vec::new();
        (&mut stream).take(MAX_SONG).read_to_end(&mut heard).await?;
        stream.write_all(&heard).await?;
        stream.shutdown().await
    };
    if let Ok(Err(error)) = tokio::time::timeout(SING_TIMEOUT, song).await {
        tracing::debug!(%error, "a canary was not brought back");
    }
}

async fn serve_stream(header: StreamHeader, stream: Stream, entry: &Entry, scope: &Scope) {
    let mut open = entry.counters.open();
    // On the heap, because it is over soon and the stream may be idle for long.
    let connecting = Box::pin(entry.target.connect(header.connect_timeout, scope));
    let connected = tokio::select! {
        connected = connecting => connected,
        // Nobody waits for it any longer.
        () = stream.gone() => {
            open.reason = stream.watch().end().unwrap_or(Reason::Cancelled);
            return;
        }
    };
    match connected {
        Ok(mut upstream) => {
            stream.confirm();
            let outcome = relay(stream, &mut upstream, TERMS, &entry.counters).await;
            let is_bare = matches!(header.service, ServiceName::Tcp(_) | ServiceName::Named(_));
            if outcome.reason != Reason::Done && is_bare {
                // Nobody reads from the protocol whether it was all: a reset says that it was not.
                upstream.abort();
            }
            open.reason = outcome.reason;
            tracing::debug!(service = %header.service, reason = %outcome.reason, "stream ended");
        }
        Err(reason) => {
            tracing::warn!(service = %header.service, %reason, "cannot connect to the upstream");
            open.reason = reason;
            stream.reset(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_tunnel::session::Side;

    use super::*;

    fn header(host: &str) -> StreamHeader {
        StreamHeader {
            service: host.parse().unwrap(),
            client_addr: None,
            connect_timeout: Duration::from_secs(9),
        }
    }

    #[tokio::test]
    async fn a_gateway_that_opens_too_many_streams_or_others_is_refused_with_few_words() {
        let scope = Scope::new();
        let (here, there) = tokio::io::duplex(1 << 16);
        let agent = Session::start(here, Side::Agent, &scope);
        let gateway = Session::start(there, Side::Gateway, &scope);
        let services =
            [Service { name: "a.example".parse().unwrap(), upstream: "http_status:204".parse().unwrap() }];
        let observe = Observe::new(None, "test", scope.workers());
        let mut exposed =
            Exposed::prepare(&services, &observe, scope.child()).map_err(|(text, _)| text).unwrap();
        assert_eq!(exposed.places.available_permits(), MAX_STREAMS);
        exposed.places = Arc::new(Semaphore::new(1));
        let exposed = Arc::new(exposed);
        let serving = Arc::clone(&exposed);
        scope.spawn("agent", async move { serving.serve(&agent, || {}).await });

        let first = gateway.open(&header("a.example")).unwrap();
        for (host, reason) in [("a.example", Reason::Overloaded), ("b.example", Reason::NotOffered)] {
            let mut refused = gateway.open(&header(host)).unwrap();
            assert!(refused.read_chunk().await.is_err());
            assert_eq!(refused.watch().end(), Some(reason));
        }
        assert_eq!(exposed.vain.lock().1, 1, "the second was not worth a line");
        assert!(first.watch().end().is_none(), "who has a place keeps it");
        scope.cancel();
    }
}
