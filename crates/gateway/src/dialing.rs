//! Dials: streams that agents open to services by their names, joined to whoever offers those.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_control::{Subject, authorize, authorize_offer};
use adit_proto::limits::MAX_NAME;
use adit_proto::name::Name;
use adit_proto::names::ServiceName;
use adit_proto::reason::Reason;
use adit_tunnel::relay::join;
use adit_tunnel::session::Stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::flow::DataPlane;
use crate::observe::connection::ConnectionRecord;
use crate::reach::{self, Early, Flow};
use crate::sessions::AgentSession;

/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The outer half: whatever happens inside, including cancellation, ends in one record, and in one reason for the agent.
pub(crate) async fn carry(
    mut near: Stream,
    name: &Name,
    client: SocketAddr,
    agent: &Arc<AgentSession>,
    plane: &DataPlane,
) {
    let mut record = plane.observe.begin_dial(name, &agent.who, agent.instance, client);
    // On the heap, because it is over soon and the stream may be idle for long.
    let reason = match Box::pin(connect(&mut near, name, client, agent, plane, &mut record)).await {
        Ok(far) => {
            near.confirm();
            join(far, near, Reason::ClientGone, &record).await.reason
        }
        Err(reason) => {
            tracing::debug!(%reason, service = %name, identity = %agent.who, "a dial is refused");
            near.reset(reason);
            reason
        }
    };
    record.ended(reason);
}

/// The inner half: the phases in order, up to a stream whose upstream is connected.
async fn connect(
    near: &mut Stream,
    name: &Name,
    client: SocketAddr,
    agent: &AgentSession,
    plane: &DataPlane,
    record: &mut ConnectionRecord,
) -> Result<Stream, Reason> {
    let snapshot = plane.snapshots.current();
    let subject = Subject { who: agent.who.clone(), address: Some(agent.remote.ip().to_canonical()) };
    // Whoever may not dial it does not learn whether it exists.
    let permit = authorize(&snapshot, &subject, &ServiceName::Named(name.clone()))
        .map_err(|_denial| Reason::NotPermitted)?;
    let service = plane.sessions.named(name);
    record.reaches(&service);
    let grant = plane.sessions.grants().of(&agent.who, permit.service(), None);
    let flow = Flow { client, permit: &permit, subject: &subject, grant: &grant };
    let stream = reach::open(near, &service, flow, Early::default(), plane, record).await?;
    record.rests_on(grant);
    Ok(stream)
}

/// Answers an agent that asks why it does not reach a service: it sends the name, and reads a text.
pub(crate) async fn explain(mut stream: Stream, agent: &AgentSession, plane: &DataPlane) {
    stream.confirm();
    let answered = async {
        let mut asked = Vec::new();
        (&mut stream).take(MAX_NAME as u64 + 1).read_to_end(&mut asked).await?;
        let name = std::str::from_utf8(&asked).ok().and_then(|text| text.parse::<Name>().ok());
        let text =
            name.map_or_else(|| "that is no name of a service".to_owned(), |name| why(&name, agent, plane));
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    };
    if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, answered).await {
        tracing::debug!(%error, "a question was not answered");
    }
}

/// Who may neither dial nor offer a service hears the same whether it exists or not.
fn why(name: &Name, agent: &AgentSession, plane: &DataPlane) -> String {
    let snapshot = plane.snapshots.current();
    let (who, service) = (&agent.who, ServiceName::Named(name.clone()));
    let subject = Subject { who: who.clone(), address: Some(agent.remote.ip().to_canonical()) };
    let denial = match authorize(&snapshot, &subject, &service) {
        Err(denial) => denial,
        Ok(_) if plane.sessions.named(name).has_endpoint() => {
            return format!("{who} may dial {name}, and an agent that offers it is connected");
        }
        Ok(_) => return format!("{who} may dial {name}, but no agent that offers it is connected"),
    };
    if snapshot.is_admin(who) || authorize_offer(&snapshot, who, &service).is_ok() {
        return denial.message(&snapshot);
    }
    let id = who.name().map_or("public", Name::as_str);
    format!(
        "{who} may dial no service {name}, or there is none; whoever runs the gateway sees why with: \
         adit explain dial --identity \"{id}\" --service \"{name}\""
    )
}
