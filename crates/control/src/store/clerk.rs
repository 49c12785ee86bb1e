//! A thread that owns something and does what it is asked, one thing after another.

use std::fmt;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout_at;

use super::StoreError;

/// Requests that may wait; more wait where they come from.
const WAITING: usize = 64;

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// What a clerk owns.
pub(super) trait Desk: Send + 'static {
    /// Does what is due, and says when to look again.
    fn look(&mut self) -> Option<Instant> {
        None
    }
}

/// The thread. It ends when this is dropped, and is waited for: what it owns is closed then.
pub(super) struct Clerk<S> {
    jobs: Mutex<Option<mpsc::Sender<Job<S>>>>,
    /// Its other end goes when what the thread owned is closed.
    lives: watch::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl<S: Desk> Clerk<S> {
    pub(super) fn start(name: &str, desk: S) -> Result<Self, StoreError> {
        let failed = |error: std::io::Error| StoreError::Unavailable(error.into());
        let (sender, jobs) = mpsc::channel(WAITING);
        let runtime = Builder::new_current_thread().enable_time().build().map_err(failed)?;
        let (living, lives) = watch::channel(());
        let work = move || {
            runtime.block_on(work(desk, jobs));
            drop(living);
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work).map_err(failed)?;
        Ok(Self { jobs: Mutex::new(Some(sender)), lives, thread: Some(thread) })
    }

    /// Has it do something. Cancel safe: what is not begun when the future is dropped may still be done, whole.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let gone = || StoreError::Unavailable("the store has been closed".into());
        let (reply, answer) = oneshot::channel();
        let job: Job<S> = Box::new(move |desk| {
            // Nobody waits for the answer of a request that was dropped.
            drop(reply.send(job(desk)));
        });
        let jobs = self.jobs.lock().clone().ok_or_else(gone)?;
        jobs.send(job).await.ok().ok_or_else(gone)?;
        drop(jobs);
        answer.await.ok().ok_or_else(gone)?
    }

    /// Has the thread end when it has done what it was asked, and waits for that. Cancel safe: it ends anyway.
    pub(super) async fn close(&self) {
        drop(self.jobs.lock().take());
        let mut lives = self.lives.clone();
        while lives.changed().await.is_ok() {}
    }
}

async fn work<S: Desk>(mut desk: S, mut jobs: mpsc::Receiver<Job<S>>) {
    loop {
        let job = match desk.look() {
            Some(deadline) => match timeout_at(deadline.into(), jobs.recv()).await {
                Ok(job) => job,
                Err(_elapsed) => continue,
            },
            None => jobs.recv().await,
        };
        let Some(job) = job else { return };
        job(&mut desk);
    }
}

impl<S> Drop for Clerk<S> {
    fn drop(&mut self) {
        drop(self.jobs.get_mut().take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so already.
            drop(thread.join());
        }
    }
}

impl<S> fmt::Debug for Clerk<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clerk").finish_non_exhaustive()
    }
}
