//! One link for each gateway: each has its own loop, its own pauses and its own place on the board.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use adit_proto::names::InstanceId;
use adit_tunnel::proof::TokenKey;
use adit_tunnel::scope::Scope;
use adit_tunnel::watchdog::{Progress, supervise};
use tokio::sync::watch;

use crate::board::Board;
use crate::connect::Keeper;
use crate::dial::Dialer;
use crate::expose::Exposed;
use crate::observe::Observe;

/// What all links of an agent share.
pub(crate) struct Links {
    pub(crate) key: TokenKey,
    pub(crate) instance: InstanceId,
    pub(crate) hostname: String,
    pub(crate) exposed: Arc<Exposed>,
    pub(crate) observe: Observe,
    pub(crate) board: Board,
    pub(crate) sessions: Scope,
    /// Ticks when the clock has jumped.
    pub(crate) awoken: watch::Sender<()>,
}

impl Links {
    /// Keeps a session to each of these gateways, in tasks of `scope`.
    pub(crate) fn keep(&self, gateways: Vec<(Arc<str>, Dialer)>, scope: &Scope) {
        for (number, (label, dialer)) in gateways.into_iter().enumerate() {
            // The first link has the agent's own name.
            let salt = if number == 0 { "" } else { &*label };
            let (_, wanted) = watch::channel(true);
            scope.spawn("session loop", keep(self.keeper(&label, salt, dialer, wanted)));
        }
    }

    fn keeper(&self, label: &Arc<str>, salt: &str, gateway: Dialer, wanted: watch::Receiver<bool>) -> Keeper {
        Keeper {
            gateway: Arc::new(gateway),
            key: self.key.clone(),
            instance: self.instance_for(salt),
            hostname: self.hostname.clone(),
            exposed: Arc::clone(&self.exposed),
            observe: self.observe.gateway(label),
            place: self.board.link(Arc::clone(label)),
            generation: AtomicU64::new(0),
            progress: Progress::default(),
            wanted,
            awoken: self.awoken.subscribe(),
            sessions: self.sessions.clone(),
        }
    }

    /// Two links may lead to one gateway, by two names or two addresses. There they are two agents, or each would take
    /// the other for its own past.
    fn instance_for(&self, salt: &str) -> InstanceId {
        let mut bytes = *self.instance.as_bytes();
        if !salt.is_empty() {
            for (byte, mixed) in bytes[8..].iter_mut().zip(fnv(salt).to_be_bytes()) {
                *byte ^= mixed;
            }
        }
        InstanceId::from_bytes(bytes)
    }
}

async fn keep(keeper: Keeper) {
    let restarted = |how| {
        keeper.observe.restarted();
        let gateway = keeper.place.gateway();
        tracing::error!(%gateway, how, "the loop that keeps a session had to be started anew; this is a bug");
    };
    supervise(&keeper.progress, || keeper.run(), restarted).await;
}

/// FNV-1a: spreads, and need not be secret.
fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
