//! Requests to the interface are worked on apart from traffic: what they ask for may be large, and takes the time it
//! takes.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use super::problem::Problem;

/// Requests at once; others wait. Each has a thread, and holds its answer in memory.
const AT_ONCE: usize = 8;

/// Where requests are worked on.
#[derive(Debug, Clone)]
pub(super) struct Apart {
    turns: Arc<Semaphore>,
}

impl Apart {
    pub(super) fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Has an answer made by a thread that carries no traffic. Cancel safe: who is not there any more is not answered,
    /// and what waits for something is given up.
    pub(super) async fn answer(
        &self,
        answer: impl Future<Output = Response<Body>> + Send + 'static,
    ) -> Response<Body> {
        let lost = || {
            Problem::gateway("internal", 500, "the answer was lost", "try again, and report it")
                .into_response()
        };
        let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else { return lost() };
        let (waits, gone) = oneshot::channel::<()>();
        let runtime = Handle::current();
        let working = tokio::task::spawn_blocking(move || {
            let answered = runtime.block_on(async {
                tokio::select! {
                    biased;
                    response = answer => Some(response),
                    _ = gone => None,
                }
            });
            drop(turn);
            answered
        });
        let answered = working.await;
        drop(waits);
        answered.ok().flatten().unwrap_or_else(lost)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn traffic_goes_on_while_an_answer_is_made() {
        let apart = Apart::new();
        let (goes_on, is_done) = std::sync::mpsc::channel::<()>();
        let answer = apart.answer(async move {
            // A thread that carried traffic would never get to the other end.
            is_done.recv().map_or(StatusCode::GONE, |()| StatusCode::OK).into_response()
        });
        let traffic = async {
            tokio::task::yield_now().await;
            goes_on.send(()).expect("it is waited for");
        };
        let (response, ()) = timeout(SOON, async { tokio::join!(answer, traffic) }).await.expect("both end");
        assert_eq!(response.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn who_is_gone_leaves_the_turn_to_others() {
        let apart = Apart::new();
        let mut waiting = JoinSet::new();
        for _ in 0..AT_ONCE {
            let apart = apart.clone();
            waiting.spawn(async move { apart.answer(std::future::pending()).await });
        }
        while apart.turns.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        waiting.shutdown().await;
        let answer = apart.answer(async { StatusCode::OK.into_response() });
        assert_eq!(timeout(SOON, answer).await.expect("there is a turn").status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn an_answer_that_panics_is_told_and_ends_nothing_else() {
        let apart = Apart::new();
        let lost = apart.answer(async { panic!("a mistake") }).await;
        assert_eq!(lost.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(apart.turns.available_permits(), AT_ONCE);
    }
}
