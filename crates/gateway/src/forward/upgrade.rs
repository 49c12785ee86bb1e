//! After `101 Switching Protocols`: bytes both ways, whatever they mean.

use std::sync::Arc;

use ::http::Request;
use adit_proto::reason::Reason;
use adit_tunnel::relay::{Meter, Terms, relay};
use adit_tunnel::session::Stream;
use adit_tunnel::stream::Watch;
use hyper::body::Incoming;
use hyper::upgrade::{self, OnUpgrade};
use hyper_util::rt::TokioIo;

use crate::flow::{Connection, DataPlane, Held};
use crate::http::guard::GuardHandle;
use crate::observe::Record;

/// The client's half of an upgrade that the upstream may agree to.
#[derive(Debug)]
pub(crate) struct Upgrade {
    client: OnUpgrade,
    guard: Option<GuardHandle>,
    held: Option<Arc<Held>>,
    plane: Arc<DataPlane>,
}

impl Upgrade {
    pub(crate) fn of(
        request: &mut Request<Incoming>,
        connection: &Connection,
        plane: &Arc<DataPlane>,
    ) -> Self {
        let (guard, held) = (connection.guard.clone(), connection.held.clone());
        Self { client: upgrade::on(request), guard, held, plane: Arc::clone(plane) }
    }

    /// The upstream agreed: joins the two connections once both are free, for as long as they last.
    pub(crate) fn spawn(self, upstream: OnUpgrade, watch: Watch, record: Record) {
        let Self { client, guard, held, plane } = self;
        if let Some(guard) = &guard {
            guard.upgraded();
        }
        let terms = Terms { lost: Reason::ClientGone, patience: Some(plane.live.limits().stall_timeout) };
        plane.scope.spawn("upgraded connection", async move {
            let mut metered = Metered(parking_lot::Mutex::new(record));
            let reason = match tokio::try_join!(client, upstream) {
                Ok((client, upstream)) => join(client, upstream, terms, &metered).await,
                Err(error) => {
                    tracing::debug!(%error, "an upgrade was not completed");
                    watch.reset(Reason::ClientGone);
                    Reason::ClientGone
                }
            };
            metered.0.get_mut().ended(reason);
            drop(held);
        });
    }
}

async fn join(
    client: upgrade::Upgraded,
    upstream: upgrade::Upgraded,
    terms: Terms,
    metered: &Metered,
) -> Reason {
    let Ok(parts) = upstream.downcast::<TokioIo<Stream>>() else {
        tracing::error!("an upgraded upstream connection is not a stream; this is a bug");
        return Reason::Internal;
    };
    let mut stream = parts.io.into_inner();
    // The first bytes of the new protocol often come in the same segment as the 101.
    stream.unread(&parts.read_buf);
    relay(stream, TokioIo::new(client), terms, metered).await.reason
}

/// Counts an upgraded connection's bytes as they move.
struct Metered(parking_lot::Mutex<Record>);

impl Meter for Metered {
    fn sent(&self, bytes: u64) {
        self.0.lock().bytes_out(bytes);
    }

    fn received(&self, bytes: u64) {
        let mut record = self.0.lock();
        record.bytes_in(bytes);
        record.count_in(bytes);
    }
}
