//! A fixed number of connections, and which of them is closed when a new one arrives.
//!
//! A slow client costs one slot. New connections are never refused: when all slots are taken, one of
//! the address with the most connections is closed: the one that has been idle longest, or, if none
//! is idle, the one that has taken nothing of its response for longest. So a thousand slow clients
//! displace each other, and a scraper gets its response whole. While the agent makes a response its
//! connection is not closed, nor is one whose client has just connected: on a busy host it gets to
//! send its request only milliseconds later, and a flood takes all slots in two.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::task::{AbortHandle, Id};

/// Connections at the same time.
pub(super) const SLOTS: usize = 128;

/// A client that has taken nothing of its response for so long is as good as idle.
const STALLED: Duration = Duration::from_secs(2);

/// So long a client has for its request, whatever other connections want. With that, a flood gets in
/// 12,800 connections a second; the next ones wait to be accepted.
const BEGINNING: Duration = Duration::from_millis(10);

/// Connections that are served.
#[derive(Default)]
pub(super) struct Slots(HashMap<Id, Slot>);

struct Slot {
    peer: IpAddr,
    phase: Phase,
    task: AbortHandle,
}

/// What a connection waits for, and since when.
#[derive(Clone, Debug)]
pub(super) struct Phase(Arc<Mutex<(Stage, Instant)>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// For the client's request, or the rest of it.
    Idle,
    /// For the agent's response.
    Answering,
    /// For the client to take the next part of the response.
    Sending,
}

/// Held while a response is being made and sent.
#[derive(Debug)]
pub(super) struct Answering(Phase);

/// The body of a response. Its connection is idle again when the last part was taken.
#[derive(Debug)]
struct Sending {
    body: Body,
    answering: Answering,
}

/// The body of a request. While the client owes the next part of it the connection is idle, or slow
/// clients would keep all slots.
#[derive(Debug)]
pub(super) struct Receiving<B> {
    body: B,
    phase: Phase,
}

impl Slots {
    /// Makes room for one more; false if all are being answered, or have just begun.
    pub(super) fn make_room(&mut self) -> bool {
        if self.0.len() < SLOTS {
            return true;
        }
        let mut taken: HashMap<IpAddr, usize> = HashMap::new();
        for slot in self.0.values() {
            *taken.entry(slot.peer).or_default() += 1;
        }
        let candidates = self.0.iter().filter_map(|(id, slot)| {
            let (idle, waited) = slot.phase.waits_for_client()?;
            Some(((taken.get(&slot.peer).copied(), idle, waited), *id))
        });
        let slowest = candidates.max_by_key(|(rank, _)| *rank).map(|(_, id)| id);
        let Some(gone) = slowest.and_then(|id| self.0.remove(&id)) else { return false };
        gone.task.abort();
        true
    }

    pub(super) fn add(&mut self, peer: IpAddr, phase: Phase, task: AbortHandle) {
        self.0.insert(task.id(), Slot { peer, phase, task });
    }

    pub(super) fn ended(&mut self, task: Id) {
        self.0.remove(&task);
    }
}

// === impl Phase ===

impl Default for Phase {
    fn default() -> Phase {
        Phase(Arc::new(Mutex::new((Stage::Idle, Instant::now()))))
    }
}

impl Phase {
    /// From here until the response is sent.
    pub(super) fn answering(&self) -> Answering {
        self.set(Stage::Answering);
        Answering(self.clone())
    }

    /// A body that the agent waits for.
    pub(super) fn receiving<B>(&self, body: B) -> Receiving<B> {
        Receiving { body, phase: self.clone() }
    }

    fn set(&self, stage: Stage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (stage, Instant::now());
    }

    /// Whether the connection is idle, and how long it has waited for its client; none while it
    /// waits for the agent, or its client has had no time yet.
    fn waits_for_client(&self) -> Option<(bool, Duration)> {
        let (stage, since) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = since.elapsed();
        match stage {
            Stage::Idle => (waited >= BEGINNING).then_some((true, waited)),
            Stage::Answering => None,
            Stage::Sending => Some((waited >= STALLED, waited)),
        }
    }
}

// === impl Answering ===

impl Answering {
    /// A body that keeps the connection from being idle until it is sent.
    pub(super) fn send(self, body: Body) -> Body {
        self.0.set(Stage::Sending);
        Body::new(Sending { body, answering: self })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.set(Stage::Idle);
    }
}

impl<B: HttpBody + Unpin> HttpBody for Receiving<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.phase.set(if frame.is_pending() { Stage::Idle } else { Stage::Answering });
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    /// Asked for when the client has taken nearly all that there was before.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        // Pending is the agent's turn.
        self.answering.0.set(if frame.is_pending() { Stage::Answering } else { Stage::Sending });
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    async fn occupy(slots: &mut Slots, last: u8) -> (Phase, tokio::task::JoinHandle<()>) {
        let phase = Phase::default();
        let task = tokio::spawn(std::future::pending());
        slots.add(peer(last), phase.clone(), task.abort_handle());
        // Ages differ.
        tokio::time::sleep(Duration::from_micros(100)).await;
        (phase, task)
    }

    #[tokio::test]
    async fn the_one_that_has_been_idle_longest_of_the_busiest_address_goes() {
        let mut slots = Slots::default();
        let (_, alone) = occupy(&mut slots, 1).await;
        let (answered, first) = occupy(&mut slots, 2).await;
        let (_, second) = occupy(&mut slots, 2).await;
        let (_, third) = occupy(&mut slots, 2).await;
        for _ in 4..SLOTS {
            assert!(slots.make_room());
            occupy(&mut slots, 2).await;
        }
        let answering = answered.answering();
        assert!(slots.make_room());
        assert!(second.await.expect_err("ended").is_cancelled());
        // Answered a moment ago, and so not idle for long.
        drop(answering);
        occupy(&mut slots, 3).await;
        assert!(slots.make_room());
        assert!(third.await.expect_err("ended").is_cancelled());
        assert!(!alone.is_finished() && !first.is_finished());
    }

    /// A client that has promised a body and sends nothing.
    struct Silent;

    impl HttpBody for Silent {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn who_owes_the_rest_of_a_request_gives_way() {
        let phase = Phase::default();
        let _answering = phase.answering();
        let mut body = phase.receiving(Silent);
        tokio::time::sleep(BEGINNING).await;
        assert_eq!(phase.waits_for_client(), None);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut body).poll_frame(&mut context).is_pending());
        tokio::time::sleep(BEGINNING).await;
        assert!(phase.waits_for_client().is_some_and(|(is_idle, _)| is_idle));
    }

    #[tokio::test]
    async fn no_connection_is_closed_while_all_are_answered() {
        let mut slots = Slots::default();
        let mut answering = Vec::new();
        for _ in 0..SLOTS {
            let (phase, _) = occupy(&mut slots, 1).await;
            answering.push(phase.answering());
        }
        assert!(!slots.make_room());
        answering.pop();
        assert!(!slots.make_room(), "it may ask again at once");
        tokio::time::sleep(BEGINNING).await;
        assert!(slots.make_room());
    }

    #[tokio::test]
    async fn a_response_that_is_being_sent_goes_last_and_one_that_is_not_taken_first() {
        let mut slots = Slots::default();
        let (sending, scraper) = occupy(&mut slots, 1).await;
        for _ in 1..SLOTS {
            occupy(&mut slots, 1).await;
        }
        let body = sending.answering().send(Body::from("metrics"));
        for _ in 1..SLOTS {
            assert!(slots.make_room());
            let (phase, _) = occupy(&mut slots, 1).await;
            // They are answered too, and take nothing.
            std::mem::forget(phase.answering().send(Body::from("unread")));
        }
        let scraped = axum::body::to_bytes(body, 100).await.expect("whole");
        assert_eq!((&*scraped, scraper.is_finished()), (&b"metrics"[..], false));
        // Sent: idle, which the others are not.
        tokio::time::sleep(BEGINNING).await;
        assert!(slots.make_room());
        let ended = tokio::time::timeout(Duration::from_secs(5), scraper).await.expect("closed");
        assert!(ended.expect_err("ended").is_cancelled());
        assert!(slots.0.len() == SLOTS - 1);
    }
}
