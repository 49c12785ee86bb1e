//! A peer that runs: its halves started in order, ended and started again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::owned::{Launch, Owned, PATIENCE, Target, free_ports, wait_for_listener};
use super::peers::{Peer, Place, Plan, Programs};

/// Where peers are started.
#[derive(Debug)]
pub(super) struct Ground<'a> {
    pub(super) folder: &'a Path,
    pub(super) upstream: u16,
    pub(super) programs: &'a Programs,
}

impl<'a> Ground<'a> {
    /// A place nobody has used yet, with this many agents to come.
    pub(super) fn place(&self, peer: &Peer, agents: usize) -> Result<Place<'a>> {
        let [public, control] = free_ports()?;
        let folder = self.folder.join(format!("{}-{public}", peer.name));
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let agents = (0..agents).map(|_| Ok(free_ports::<1>()?[0])).collect::<Result<_>>()?;
        let (upstream, programs) = (self.upstream, self.programs);
        Ok(Place { folder, upstream, public, control, via: control, agents, programs })
    }

    /// Starts a peer and waits until it answers.
    pub(super) fn start(&self, peer: &Peer) -> Result<Standing> {
        let place = self.place(peer, 0)?;
        let plan = (peer.plan)(&place)?;
        Standing::start(plan, place.folder)
    }
}

/// A running peer; dropping it ends it.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) plan: Plan,
    folder: PathBuf,
    server: Option<Owned>,
    client: Option<Owned>,
    /// From the start of the last half to the first answer.
    pub(super) set_up: Duration,
}

impl Standing {
    pub(super) fn start(plan: Plan, folder: PathBuf) -> Result<Self> {
        let mut standing = Self { plan, folder, server: None, client: None, set_up: Duration::ZERO };
        let mut start = Instant::now();
        standing.start_server()?;
        if standing.plan.client.is_some() {
            if let Some(port) = standing.plan.meets_at {
                wait_for_listener(port)?;
            }
            start = Instant::now();
            standing.start_client()?;
        }
        standing.set_up = standing.wait(start, PATIENCE)?;
        Ok(standing)
    }

    pub(super) fn start_server(&mut self) -> Result<()> {
        self.server = self.started("server", self.plan.server.as_ref())?;
        Ok(())
    }

    pub(super) fn start_client(&mut self) -> Result<()> {
        self.client = self.started("client", self.plan.client.as_ref())?;
        Ok(())
    }

    fn started(&self, half: &str, launch: Option<&Launch>) -> Result<Option<Owned>> {
        launch.map(|launch| launch.start(&self.folder.join(format!("{half}.log")))).transpose()
    }

    /// Kills it, and all it has started.
    pub(super) fn kill_server(&mut self) {
        self.server = None;
    }

    /// The same for the other half.
    pub(super) fn kill_client(&mut self) {
        self.client = None;
    }

    /// Waits for the next answer and returns how long that took since `start`.
    pub(super) fn wait(&mut self, start: Instant, patience: Duration) -> Result<Duration> {
        let mut halves: Vec<&mut Owned> = self.server.iter_mut().chain(self.client.iter_mut()).collect();
        self.plan.target.wait(start, patience, &mut halves)
    }

    pub(super) fn target(&self) -> &Target {
        &self.plan.target
    }

    pub(super) fn server_pids(&self) -> Vec<u32> {
        self.server.iter().map(Owned::pid).collect()
    }

    pub(super) fn client_pids(&self) -> Vec<u32> {
        self.client.iter().map(Owned::pid).collect()
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        [self.server_pids(), self.client_pids()].concat()
    }
}
