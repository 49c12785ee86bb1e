//! Streams that agents open: to addresses on the gateway's side (`forwarding`), and to services by name (`dialing`).

use std::sync::Arc;

use adit_control::Snapshot;
use adit_proto::handshake::{Hello, capabilities};
use adit_proto::header::StreamHeader;
use adit_proto::names::{ServiceName, explain};
use adit_proto::reason::Reason;
use adit_tunnel::scope::Scope;
use adit_tunnel::session::Stream;

use crate::flow::DataPlane;
use crate::sessions::AgentSession;
use crate::{dialing, forwarding};

/// What it takes to serve them.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) plane: Arc<DataPlane>,
}

/// What becomes of what an agent asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Granted {
    /// The capabilities that it is granted now.
    pub(crate) capabilities: u64,
    /// Those whose streams are taken; each is decided on its own.
    pub(crate) served: u64,
}

/// The capabilities that an agent is granted. One that has something else to do here is let in without forwarding,
/// which it may be granted later.
///
/// # Errors
/// It offers what nobody can be offered, or asks for what nobody has allowed.
pub(crate) fn grant(hello: &Hello, snapshot: &Snapshot) -> Result<Granted, (Reason, String)> {
    if hello.offers.iter().any(|offer| matches!(offer.service, ServiceName::Dial(_))) {
        return Err((Reason::BadRequest, "the agent offers what nobody can be offered".to_owned()));
    }
    let asked = hello.capabilities & (capabilities::FORWARDING | capabilities::DIALING);
    let mut granted = Granted { capabilities: asked, served: asked };
    if asked & capabilities::FORWARDING != 0
        && let Err(denied) = forwarding::grant(snapshot)
    {
        let has_more = !hello.offers.is_empty() || asked & capabilities::DIALING != 0;
        if !has_more || hello.capabilities & capabilities::PARTIAL == 0 {
            return Err(denied);
        }
        granted.capabilities &= !capabilities::FORWARDING;
    }
    Ok(granted)
}

impl Opened {
    /// Serves what this agent opens and may ask for, until its session ends.
    pub(crate) fn serve(&self, agent: &Arc<AgentSession>, served: u64, scope: &Scope) {
        if served == 0 {
            return;
        }
        agent.session.take_opens();
        // One on each worker, because a worker takes the streams of its own lanes.
        for worker in 0..scope.workers().count() {
            let plane = Arc::clone(&self.plane);
            let (session, agent) = (agent.session.clone(), Arc::downgrade(agent));
            scope.spawn_on(worker, "streams of an agent", async move {
                while let Some((header, stream)) = session.accept().await {
                    let Some(agent) = agent.upgrade() else { return };
                    // Connections of public listeners count as well.
                    let Ok(slot) = Arc::clone(plane.live.slots()).try_acquire_owned() else {
                        stream.reset(Reason::Overloaded);
                        continue;
                    };
                    let plane = Arc::clone(&plane);
                    let scope = plane.scope.clone();
                    scope.spawn("stream of an agent", async move {
                        serve_one(stream, &header, &agent, served, &plane).await;
                        drop(slot);
                    });
                }
            });
        }
    }
}

async fn serve_one(
    stream: Stream,
    header: &StreamHeader,
    agent: &Arc<AgentSession>,
    served: u64,
    plane: &DataPlane,
) {
    let client = header.client_addr.unwrap_or(agent.remote);
    match &header.service {
        ServiceName::Dial(to) if served & capabilities::FORWARDING != 0 => {
            let record = plane.observe.begin_forwarded(to, agent.instance, client);
            forwarding::carry(stream, to, header, record, plane).await;
        }
        ServiceName::Named(name) if served & capabilities::DIALING != 0 => {
            dialing::carry(stream, name, client, agent, plane).await;
        }
        service if *service == explain() && served & capabilities::DIALING != 0 => {
            dialing::explain(stream, agent, plane).await;
        }
        _ => stream.reset(Reason::NotOffered),
    }
}
