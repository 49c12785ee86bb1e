//! One link for each gateway: each has its own loop, its own pauses and its own place on the board.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use adit_proto::names::InstanceId;
use adit_tunnel::handshake::Credential;
use adit_tunnel::identity::LiveIdentity;
use adit_tunnel::scope::Scope;
use adit_tunnel::watchdog::{Progress, supervise};
use tokio::sync::{Notify, watch};

use crate::board::Board;
use crate::connect::Keeper;
use crate::dial::Dialer;
use crate::expose::Exposed;
use crate::observe::Observe;

/// How often the addresses of a name are looked up while nothing fails.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(30);
/// Shortest time between two lookups, however often something fails.
const LOOKUP_PAUSE: Duration = Duration::from_secs(1);

/// What all links of an agent share.
pub(crate) struct Links {
    pub(crate) credential: Credential,
    /// Whose certificate it is, where it is one.
    pub(crate) identity: Option<Arc<LiveIdentity>>,
    pub(crate) instance: InstanceId,
    pub(crate) hostname: String,
    pub(crate) exposed: Arc<Exposed>,
    pub(crate) capabilities: u64,
    pub(crate) observe: Observe,
    pub(crate) board: Board,
    pub(crate) sessions: Scope,
    /// Counts the sessions of this process.
    pub(crate) generation: Arc<AtomicU64>,
    /// Ticks when the clock has jumped.
    pub(crate) awoken: watch::Receiver<()>,
    /// The links are wanted. When they are not any more, their sessions stay until they end.
    pub(crate) wanted: watch::Receiver<bool>,
    /// Other links' sessions stand, and these take their place.
    pub(crate) succeed: bool,
}

impl Links {
    /// Keeps a session to each of these gateways, or to each of their addresses, in tasks of `scope`.
    pub(crate) fn keep(self, gateways: Vec<(Arc<str>, Dialer)>, each_address: bool, scope: &Scope) {
        let links = Arc::new(self);
        for (number, (label, dialer)) in gateways.into_iter().enumerate() {
            if each_address && dialer.resolves() {
                let (links, owner) = (Arc::clone(&links), scope.clone());
                scope.spawn("addresses", async move { links.keep_each(&label, &dialer, &owner).await });
                continue;
            }
            // The first link has the agent's own name.
            let salt = if number == 0 { "" } else { &*label };
            let keeper = links.keeper(&label, salt, dialer, links.wanted.clone(), Arc::default());
            scope.spawn("session loop", keep(keeper));
        }
    }

    /// A link for each address that the name has. One that is gone keeps its session until that ends. Ends when the
    /// links are not wanted any more.
    async fn keep_each(&self, label: &Arc<str>, dialer: &Dialer, scope: &Scope) {
        let mut kept: HashMap<IpAddr, watch::Sender<bool>> = HashMap::new();
        let failed = Arc::<Notify>::default();
        let mut wanted = self.wanted.clone();
        while *wanted.borrow_and_update() {
            match dialer.addresses().await {
                Ok(addresses) => {
                    kept.retain(|address, wanted| {
                        let stays = addresses.contains(address);
                        wanted.send_replace(stays);
                        stays
                    });
                    for address in addresses {
                        kept.entry(address).or_insert_with(|| {
                            tracing::info!(gateway = %label, %address, "keeping a session to this address");
                            let (sender, wanted) = watch::channel(true);
                            let salt = format!("{label} {address}");
                            let failed = Arc::clone(&failed);
                            let keeper = self.keeper(label, &salt, dialer.to(address), wanted, failed);
                            scope.spawn("session loop", keep(keeper));
                            sender
                        });
                    }
                }
                Err(error) => {
                    // What is known goes on; without any, nothing else would tell.
                    tracing::warn!(gateway = %label, %error, "cannot look up the gateway's addresses");
                    if kept.is_empty() {
                        self.observe.gateway(label).connect_failed("unreachable");
                        failed.notify_one();
                    }
                }
            }
            let pause = async {
                tokio::time::sleep(LOOKUP_PAUSE).await;
                drop(tokio::time::timeout(LOOKUP_INTERVAL, failed.notified()).await);
            };
            tokio::select! {
                () = pause => {}
                Ok(()) = wanted.changed() => {}
            }
        }
        for (_, wanted) in kept {
            wanted.send_replace(false);
        }
    }

    fn keeper(
        &self,
        label: &Arc<str>,
        salt: &str,
        gateway: Dialer,
        wanted: watch::Receiver<bool>,
        failed: Arc<Notify>,
    ) -> Keeper {
        Keeper {
            gateway: Arc::new(gateway),
            credential: self.credential.clone(),
            identity: self.identity.clone(),
            instance: self.instance_for(salt),
            hostname: self.hostname.clone(),
            exposed: Arc::clone(&self.exposed),
            capabilities: self.capabilities,
            observe: self.observe.gateway(label),
            place: self.board.link(Arc::clone(label)),
            generation: Arc::clone(&self.generation),
            failed,
            progress: Progress::default(),
            wanted,
            awoken: self.awoken.clone(),
            sessions: self.sessions.clone(),
            succeeds: AtomicBool::new(self.succeed),
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
