//! The lanes of a session: each is one connection with a driver of its own.

use std::sync::Arc;
use std::task::{Poll, Waker};

use adit_proto::header::StreamHeader;
use adit_proto::limits;
use adit_proto::reason::Reason;
use parking_lot::{Mutex, MutexGuard};

use crate::mux::{Mux, Side};
use crate::workers;

/// One connection's streams: what the handles and the driver share. The lock is held for memory moves and for reads
/// that do not wait, never across an await.
#[derive(Debug)]
pub(crate) struct Lane {
    /// The worker its driver runs on.
    worker: usize,
    mux: Mutex<Mux>,
}

impl Lane {
    /// Runs `f` on the streams' state and wakes whoever it says afterwards, outside the lock.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Mux, &mut Vec<Waker>) -> T) -> T {
        let mut wake = Vec::new();
        let value = f(&mut self.mux.lock(), &mut wake);
        for waker in wake {
            waker.wake();
        }
        value
    }
}

/// All lanes of a session. Its lock is taken before a lane's, never while one is held.
#[derive(Debug)]
pub(super) struct Lanes {
    side: Side,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    up: Vec<Arc<Lane>>,
    /// Why the session has ended, once it has.
    end: Option<Reason>,
    /// The peer may open streams although it is an agent.
    takes_opens: bool,
    /// Woken when a lane comes or goes.
    watchers: Vec<Waker>,
}

impl Lanes {
    pub(super) fn new(side: Side) -> Self {
        Self { side, state: Mutex::default() }
    }

    pub(super) const fn side(&self) -> Side {
        self.side
    }

    /// Adds a lane whose first bytes are `prelude`.
    ///
    /// # Errors
    /// Why there can be no further lane.
    pub(super) fn add(self: &Arc<Self>, prelude: &[u8]) -> Result<LaneGuard, Reason> {
        let state = self.state.lock();
        let leaving = || state.up.iter().find_map(|lane| lane.with(|mux, _| mux.leaving()));
        if let Some(reason) = state.end.or_else(leaving) {
            return Err(reason);
        }
        if state.up.len() >= limits::MAX_LANES {
            return Err(Reason::Overloaded);
        }
        Ok(self.push(state, prelude))
    }

    /// Adds the first lane.
    pub(super) fn first(self: &Arc<Self>, prelude: &[u8]) -> LaneGuard {
        self.push(self.state.lock(), prelude)
    }

    fn push(self: &Arc<Self>, mut state: MutexGuard<'_, State>, prelude: &[u8]) -> LaneGuard {
        let mut mux = Mux::new(self.side);
        mux.begin_with(prelude);
        if state.takes_opens {
            mux.take_opens();
        }
        let lane = Arc::new(Lane { worker: workers::current(), mux: Mutex::new(mux) });
        state.up.push(Arc::clone(&lane));
        let watchers = std::mem::take(&mut state.watchers);
        drop(state);
        watchers.into_iter().for_each(Waker::wake);
        LaneGuard { lanes: Arc::clone(self), lane }
    }

    /// Lets the peer open streams on every lane, also on those to come.
    pub(super) fn take_opens(&self) {
        let mut state = self.state.lock();
        state.takes_opens = true;
        for lane in &state.up {
            lane.with(|mux, _| mux.take_opens());
        }
    }

    /// Takes a lane out. The session ends with its last one, for the same reason.
    fn remove(&self, gone: &Arc<Lane>) {
        let mut state = self.state.lock();
        state.up.retain(|lane| !Arc::ptr_eq(lane, gone));
        if state.up.is_empty() && state.end.is_none() {
            state.end = gone.with(|mux, _| mux.closed());
        }
        let watchers = std::mem::take(&mut state.watchers);
        drop(state);
        watchers.into_iter().for_each(Waker::wake);
    }

    /// Opens a stream on a lane that has little to write, this worker's or else the first, so that small streams share
    /// rounds; if there is none, on the one that has least.
    pub(super) fn open(&self, header: &StreamHeader, tag: u64) -> Result<(Arc<Lane>, u32), Reason> {
        let state = self.state.lock();
        if let Some(reason) = state.end {
            return Err(reason);
        }
        let best = match state.up.as_slice() {
            [only] => Some(only),
            lanes => {
                let here = workers::current();
                lanes.iter().min_by_key(|lane| (lane.with(|mux, _| mux.load()), lane.worker != here))
            }
        };
        let Some(lane) = best else { return Err(Reason::AgentLost) };
        let id = lane.with(|mux, wake| {
            let id = mux.open(header, tag);
            mux.note_sharing(wake);
            id
        })?;
        Ok((Arc::clone(lane), id))
    }

    /// The next stream the peer has opened on any lane of this worker; `None` once the session has ended.
    pub(super) fn poll_accept(&self, waker: &Waker) -> Poll<Option<(Arc<Lane>, u32, StreamHeader)>> {
        let mut state = self.state.lock();
        let here = workers::current();
        for lane in state.up.iter().filter(|lane| lane.worker == here) {
            if let Poll::Ready(Some((id, header))) = lane.with(|mux, _| mux.poll_accept(waker)) {
                return Poll::Ready(Some((Arc::clone(lane), id, header)));
            }
        }
        if state.end.is_some() {
            return Poll::Ready(None);
        }
        state.watch(waker);
        Poll::Pending
    }

    /// Calls `waker` when something about the session changes: a lane comes, goes, drains or has no streams left.
    pub(super) fn watch(&self, waker: &Waker) {
        let mut state = self.state.lock();
        state.watch(waker);
        for lane in &state.up {
            lane.with(|mux, _| mux.watch(waker));
        }
    }

    /// Ends the session; all that is left to do is each lane's last words.
    pub(super) fn close(&self, reason: Reason) {
        let mut state = self.state.lock();
        state.end.get_or_insert(reason);
        for lane in &state.up {
            lane.with(|mux, wake| {
                mux.go_away(reason);
                mux.close(reason, wake);
            });
        }
        let watchers = std::mem::take(&mut state.watchers);
        drop(state);
        watchers.into_iter().for_each(Waker::wake);
    }

    /// Why the session has ended, if it has.
    pub(super) fn end(&self) -> Option<Reason> {
        let state = self.state.lock();
        if state.end.is_some() {
            return state.end;
        }
        // A lane that is lost is taken out a moment later.
        let mut last = None;
        for lane in &state.up {
            last = Some(lane.with(|mux, _| mux.closed())?);
        }
        last
    }

    /// Runs `f` on every lane that stands.
    pub(super) fn each<T>(&self, mut f: impl FnMut(&Arc<Lane>, &mut Mux) -> T) -> Vec<T> {
        let state = self.state.lock();
        state.up.iter().map(|lane| lane.with(|mux, _| f(lane, mux))).collect()
    }

    /// Resets every stream with a tag that is meant; how many there were.
    pub(super) fn reset_tagged(&self, is_meant: &impl Fn(u64) -> bool, reason: Reason) -> usize {
        let lanes = self.state.lock().up.clone();
        lanes.iter().map(|lane| lane.with(|mux, wake| mux.reset_tagged(is_meant, reason, wake))).sum()
    }

    /// Whether `holds` for every lane that stands.
    pub(super) fn all(&self, holds: impl Fn(&Mux) -> bool) -> bool {
        self.state.lock().up.iter().all(|lane| lane.with(|mux, _| holds(mux)))
    }

    /// Why the peer takes no new streams, if it does not.
    pub(super) fn leaving(&self) -> Option<Reason> {
        self.state.lock().up.iter().find_map(|lane| lane.with(|mux, _| mux.draining()))
    }

    pub(super) fn is_open(&self) -> bool {
        let state = self.state.lock();
        let takes = |lane: &Arc<Lane>| lane.with(|mux, _| mux.closed().is_none() && mux.draining().is_none());
        state.end.is_none() && state.up.iter().any(takes)
    }

    pub(super) fn count(&self) -> usize {
        self.state.lock().up.len()
    }
}

impl State {
    fn watch(&mut self, waker: &Waker) {
        if !self.watchers.iter().any(|known| known.will_wake(waker)) {
            self.watchers.push(waker.clone());
        }
    }
}

/// A lane's place in its session. A driver that is cancelled (its scope ended) must not leave streams waiting for
/// ever: dropping this closes the lane, however it ended.
#[derive(Debug)]
pub(super) struct LaneGuard {
    lanes: Arc<Lanes>,
    pub(super) lane: Arc<Lane>,
}

impl LaneGuard {
    /// Asks for a sign of life on every other lane of the session.
    pub(super) fn probe_others(&self) {
        self.lanes.each(|lane, mux| {
            if !Arc::ptr_eq(lane, &self.lane) {
                mux.mark();
            }
        });
    }

    pub(super) fn side(&self) -> Side {
        self.lanes.side()
    }
}

impl Drop for LaneGuard {
    fn drop(&mut self) {
        self.lane.with(|mux, wake| mux.close(Reason::AgentLost, wake));
        self.lanes.remove(&self.lane);
    }
}
