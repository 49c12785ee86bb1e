//! What happens to one stream: find the offer it is for, connect, relay. Nothing that was not offered is reached.

use std::collections::HashMap;
use std::sync::Arc;

use adit_proto::handshake::Offer;
use adit_proto::header::StreamHeader;
use adit_proto::names::HostPattern;
use adit_proto::reason::Reason;
use adit_tunnel::relay::{Terms, relay};
use adit_tunnel::scope::Scope;
use adit_tunnel::session::{Session, Stream};

use crate::config::Service;
use crate::observe::{Observe, ServiceCounters};
use crate::upstream::{Target, TargetError};

/// How long a half-open stream may stand still is the gateway's decision: it knows what the stream is for.
const TERMS: Terms = Terms { lost: Reason::UpstreamClosed, patience: None };

/// Everything this agent offers, ready to be connected to.
pub(crate) struct Exposed {
    services: HashMap<HostPattern, Arc<Entry>>,
    offers: Vec<Offer>,
    /// Streams run here, so that a drain can wait for them after the session loop has stopped.
    scope: Scope,
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
        for Service { host, upstream } in services {
            let target = Target::prepare(upstream)
                .map_err(|error| (format!("the upstream {upstream} of {host} cannot be used"), error))?;
            let label: Arc<str> = host.to_string().into();
            let counters = observe.service(&label);
            map.insert(host.clone(), Arc::new(Entry { target, counters }));
            offers.push(Offer { service: host.clone(), upstream: upstream.to_string() });
        }
        Ok(Self { services: map, offers, scope })
    }

    /// What to say in the hello.
    pub(crate) fn offers(&self) -> &[Offer] {
        &self.offers
    }

    /// Serves a session's streams until it ends. Cancel safe: streams already taken run on.
    pub(crate) async fn serve(&self, session: &Session) {
        while let Some((header, stream)) = session.accept().await {
            let Some(entry) = self.services.get(&header.service) else {
                tracing::warn!(service = %header.service, "the gateway asked for a service that is not offered");
                stream.reset(Reason::NotOffered);
                continue;
            };
            let entry = Arc::clone(entry);
            let scope = self.scope.clone();
            self.scope.spawn("stream", async move { serve_stream(header, stream, &entry, &scope).await });
        }
    }
}

async fn serve_stream(header: StreamHeader, stream: Stream, entry: &Entry, scope: &Scope) {
    let mut open = entry.counters.open();
    match entry.target.connect(header.connect_timeout, scope).await {
        Ok(upstream) => {
            stream.confirm();
            let outcome = relay(stream, upstream, TERMS, &entry.counters).await;
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
