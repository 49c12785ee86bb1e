//! Streams that agents open: to addresses on the gateway's side (`forwarding`), and to services by name (`dialing`).

use std::sync::Arc;

use adit_control::Snapshot;
use adit_proto::handshake::{Hello, capabilities};
use adit_proto::header::StreamHeader;
use adit_proto::names::{ServiceName, explain};
use adit_proto::reason::Reason;
use adit_tunnel::scope::Scope;
use adit_tunnel::session::Stream;
use tokio::sync::Semaphore;

use crate::flow::DataPlane;
use crate::sessions::AgentSession;
use crate::{dialing, forwarding};

/// What it takes to serve them.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) plane: Arc<DataPlane>,
    /// Connections at once; those of public listeners count as well.
    pub(crate) slots: Arc<Semaphore>,
}

/// The capabilities that an agent is granted.
///
/// # Errors
/// It offers what nobody can be offered, or asks for what nobody has allowed.
pub(crate) fn grant(hello: &Hello, snapshot: &Snapshot) -> Result<u64, (Reason, String)> {
    if hello.offers.iter().any(|offer| matches!(offer.service, ServiceName::Dial(_))) {
        return Err((Reason::BadRequest, "the agent offers what nobody can be offered".to_owned()));
    }
    let asked = hello.capabilities & (capabilities::FORWARDING | capabilities::DIALING);
    if asked & capabilities::FORWARDING != 0 {
        forwarding::grant(snapshot)?;
    }
    Ok(asked)
}

impl Opened {
    /// Serves what this agent opens and was granted, until its session ends.
    pub(crate) fn serve(&self, agent: &Arc<AgentSession>, granted: u64, scope: &Scope) {
        if granted == 0 {
            return;
        }
        agent.session.take_opens();
        // One on each worker, because a worker takes the streams of its own lanes.
        for worker in 0..scope.workers().count() {
            let (plane, slots) = (Arc::clone(&self.plane), Arc::clone(&self.slots));
            let (session, agent) = (agent.session.clone(), Arc::downgrade(agent));
            scope.spawn_on(worker, "streams of an agent", async move {
                while let Some((header, stream)) = session.accept().await {
                    let Some(agent) = agent.upgrade() else { return };
                    let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                        stream.reset(Reason::Overloaded);
                        continue;
                    };
                    let plane = Arc::clone(&plane);
                    let scope = plane.scope.clone();
                    scope.spawn("stream of an agent", async move {
                        serve_one(stream, &header, &agent, granted, &plane).await;
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
    granted: u64,
    plane: &DataPlane,
) {
    let client = header.client_addr.unwrap_or(agent.remote);
    match &header.service {
        ServiceName::Dial(to) if granted & capabilities::FORWARDING != 0 => {
            let record = plane.observe.begin_forwarded(to, agent.instance, client);
            forwarding::carry(stream, to, header, record, plane).await;
        }
        ServiceName::Named(name) if granted & capabilities::DIALING != 0 => {
            dialing::carry(stream, name, client, agent, plane).await;
        }
        service if *service == explain() && granted & capabilities::DIALING != 0 => {
            dialing::explain(stream, agent, plane).await;
        }
        _ => stream.reset(Reason::NotOffered),
    }
}
