//! The one owner of tasks: whatever is spawned hangs on a scope, ends when the scope is cancelled, and is waited
//! for when it drains.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::workers::Workers;

/// A group of tasks with one end. Clones are the same group.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    cancelled: CancellationToken,
    tasks: TaskTracker,
    workers: Workers,
}

impl Scope {
    /// A scope of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A scope whose connections are spread over these workers.
    #[must_use]
    pub fn over(workers: &Workers) -> Self {
        Self { workers: workers.clone(), ..Self::default() }
    }

    /// The workers its connections are spread over.
    #[must_use]
    pub const fn workers(&self) -> &Workers {
        &self.workers
    }

    /// A scope that ends when this one does, and can end and be waited for by itself.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            cancelled: self.cancelled.child_token(),
            tasks: TaskTracker::new(),
            workers: self.workers.clone(),
        }
    }

    /// Runs a task on this thread until it ends or the scope is cancelled, whichever is first. A panic ends the task
    /// alone and is logged.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.tasks.spawn(self.owned(name, task)));
    }

    /// As [`Scope::spawn`], on the worker with this number.
    pub fn spawn_on<F>(&self, worker: usize, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self.workers.other(worker) {
            Some(handle) => drop(self.tasks.spawn_on(self.owned(name, task), handle)),
            None => self.spawn(name, task),
        }
    }

    /// As [`Scope::spawn`], for a task that serves a connection which was accepted on this thread: it moves to the
    /// worker whose turn it is.
    pub fn spawn_with<F>(
        &self,
        name: &'static str,
        tcp: TcpStream,
        serve: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let worker = self.workers.next();
        if self.workers.other(worker).is_none() {
            return self.spawn(name, serve(tcp));
        }
        let moved = tcp.into_std();
        self.spawn_on(worker, name, async move {
            match moved.and_then(TcpStream::from_std) {
                Ok(tcp) => serve(tcp).await,
                Err(error) => tracing::warn!(%error, "cannot take a connection to another thread"),
            }
        });
    }

    fn owned<F>(&self, name: &'static str, task: F) -> impl Future<Output = ()> + Send + 'static
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cancelled = self.cancelled.clone();
        // In a box, or the task would hold its place twice: as what was moved in, and as what is polled.
        let mut task = Box::pin(AssertUnwindSafe(task).catch_unwind());
        async move {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => {}
                result = task.as_mut() => if result.is_err() {
                    tracing::error!(task = name, "a task panicked; this is a bug");
                },
            }
        }
    }

    /// Ends every task of this scope and its children at its next await. Does not wait.
    pub fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Waits until the scope is cancelled. Cancel safe.
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Whether the scope was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// Cancels the scope when the guard is dropped.
    #[must_use]
    pub fn cancel_on_drop(&self) -> DropGuard {
        self.cancelled.clone().drop_guard()
    }

    /// Tasks running now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.tasks.len()
    }

    /// Waits for every task to end by itself, at most this long; then cancels what is left and waits for that.
    /// Returns how many tasks had to be cancelled. Cancel safe: calling again goes on waiting.
    pub async fn drain(&self, deadline: Duration) -> usize {
        self.tasks.close();
        let in_time = tokio::time::timeout(deadline, self.tasks.wait()).await.is_ok();
        let cut = if in_time { 0 } else { self.tasks.len() };
        self.cancelled.cancel();
        self.tasks.wait().await;
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_what_ends_and_cuts_what_does_not() {
        let scope = Scope::new();
        scope.spawn("short", tokio::time::sleep(Duration::from_secs(1)));
        scope.spawn("endless", std::future::pending());
        assert_eq!(scope.drain(Duration::from_secs(5)).await, 1);
        assert_eq!(scope.running(), 0);
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_task_only() {
        let scope = Scope::new();
        scope.spawn("panics", async { panic!("on purpose") });
        let (done, ended) = tokio::sync::oneshot::channel();
        scope.spawn("goes on", async move { done.send(()).unwrap() });
        ended.await.unwrap();
        assert_eq!(scope.drain(Duration::from_secs(5)).await, 0);
    }

    #[tokio::test]
    async fn a_child_ends_with_its_parent() {
        let parent = Scope::new();
        let child = parent.child();
        child.spawn("endless", std::future::pending());
        parent.cancel();
        assert_eq!(child.drain(Duration::from_secs(5)).await, 0);
    }
}
