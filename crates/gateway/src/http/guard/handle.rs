//! The handler's side of a guarded connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use bytes::Bytes;
use parking_lot::Mutex;

/// Interim responses one request may send.
const MAX_INTERIMS: usize = 32;
/// Bytes of interim responses one request may send.
const MAX_INTERIM_BYTES: usize = 64 * 1024;

/// Interim responses of the current request.
#[derive(Debug, Default)]
struct Interims {
    queue: VecDeque<Bytes>,
    accepted: usize,
    bytes: usize,
}

/// What the connection and its handlers share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    done: AtomicU64,
    /// The number of the request that was answered with 101; requests are counted from 1.
    upgraded: AtomicU64,
    /// A response ended before it was complete.
    cut: AtomicBool,
    /// The number of the request whose body is still to come from the client; 0 when there is none.
    open_body: AtomicU64,
    /// The client has begun a request that the library has not seen anything of.
    has_begun: AtomicBool,
    /// How often the connection has come to rest.
    rests: AtomicU64,
    /// The connection waits for `done` to grow.
    wake_when_done: AtomicBool,
    has_interims: AtomicBool,
    /// The current request has sent interim responses.
    spent: AtomicBool,
    interims: Mutex<Interims>,
    waker: Mutex<Option<Waker>>,
}

impl Shared {
    /// Requests whose responses are complete.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    /// Tells of which request the body is still to come, counted from 1; 0: of none.
    pub(super) fn set_open_body(&self, request: u64) {
        self.open_body.store(request, Ordering::SeqCst);
    }

    pub(super) fn set_begun(&self, has_begun: bool) {
        self.has_begun.store(has_begun, Ordering::Relaxed);
    }

    /// Whether this request was answered with 101.
    pub(super) fn is_upgraded(&self, request: u64) -> bool {
        self.upgraded.load(Ordering::SeqCst) == request
    }

    /// To be called before [`Shared::done`] is asked: then no end of a response is missed.
    pub(super) fn wake_when_done(&self) {
        self.wake_when_done.store(true, Ordering::SeqCst);
    }

    pub(super) fn come_to_rest(&self) {
        self.rests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn next_interim(&self) -> Option<Bytes> {
        if !self.has_interims.load(Ordering::SeqCst) {
            return None;
        }
        let mut interims = self.interims.lock();
        let next = interims.queue.pop_front();
        self.has_interims.store(!interims.queue.is_empty(), Ordering::SeqCst);
        next
    }

    /// Remembers whom to wake. `true` when that is somebody new.
    pub(super) fn register(&self, waker: &Waker) -> bool {
        let mut registered = self.waker.lock();
        if registered.as_ref().is_some_and(|registered| registered.will_wake(waker)) {
            return false;
        }
        *registered = Some(waker.clone());
        true
    }

    pub(super) fn forget_waker(&self) {
        let waker = self.waker.lock().take();
        // Outside the lock: dropping the last waker may drop the task.
        drop(waker);
    }

    fn wake(&self) {
        let waker = self.waker.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Tells the guard of a connection what its bytes cannot tell.
///
/// Cheap to clone; all methods return at once and may be called from any task, also after the connection ended.
#[derive(Debug, Clone)]
pub(crate) struct GuardHandle {
    shared: Arc<Shared>,
}

impl GuardHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// A response is complete or was given up: to be called exactly once for each request the service is called
    /// with, from the end or the drop of the response body.
    ///
    /// Earlier than that, a refusal behind this request may cut its response off.
    pub(crate) fn request_done(&self) {
        // Before the count: the next request may be handed out as soon as it has grown.
        if self.shared.spent.swap(false, Ordering::SeqCst) {
            let mut interims = self.shared.interims.lock();
            interims.accepted = 0;
            interims.bytes = 0;
        }
        self.shared.done.fetch_add(1, Ordering::SeqCst);
        if self.shared.wake_when_done.swap(false, Ordering::SeqCst) {
            self.shared.wake();
        }
    }

    /// The response that is being sent ends here and is not complete. To be called before the error is given to the
    /// library and before [`GuardHandle::request_done`].
    ///
    /// Where the end of the connection would look like the end of the response, the connection is reset.
    pub(crate) fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        self.shared.wake();
    }

    /// How often the connection has come to rest. When that grows, the library may go until the next request.
    pub(super) fn rests(&self) -> u64 {
        self.shared.rests.load(Ordering::Relaxed)
    }

    /// Whether the client has begun a request of which the library knows nothing yet, or its refusal is on its way. To
    /// the library such a connection is idle.
    pub(super) fn has_begun(&self) -> bool {
        self.shared.has_begun.load(Ordering::Relaxed)
    }

    /// The number of the request that the service is called with, counted from 1. To be asked when it is called.
    pub(crate) fn request(&self) -> u64 {
        self.shared.done() + 1
    }

    /// Whether the client has not sent the whole body of this request. What stands behind a request may have been read
    /// before its turn and makes no difference to it.
    pub(crate) fn is_body_open(&self, request: u64) -> bool {
        self.shared.open_body.load(Ordering::SeqCst) == request
    }

    /// The current request is answered with 101: everything the client sends behind it goes through unread.
    /// To be called before [`GuardHandle::request_done`] for that request, or instead of it.
    ///
    /// Without effect when that request did not ask for an upgrade in HTTP/1.1.
    pub(crate) fn upgraded(&self) {
        self.shared.upgraded.store(self.shared.done() + 1, Ordering::SeqCst);
        self.shared.wake();
    }

    /// Queues an interim response, a whole head with its empty line, to be written before the final response
    /// of the current request and behind all of the response before it.
    ///
    /// To be called before the final response is given to the library, and only for a request of HTTP/1.1
    /// (RFC 9110 15.2). `false` when the request has sent too many or too large ones; then it is not sent.
    pub(crate) fn inject(&self, interim: Bytes) -> bool {
        let mut interims = self.shared.interims.lock();
        if interims.accepted == MAX_INTERIMS || interims.bytes + interim.len() > MAX_INTERIM_BYTES {
            return false;
        }
        interims.accepted += 1;
        interims.bytes += interim.len();
        interims.queue.push_back(interim);
        self.shared.spent.store(true, Ordering::SeqCst);
        self.shared.has_interims.store(true, Ordering::SeqCst);
        drop(interims);
        self.shared.wake();
        true
    }
}
