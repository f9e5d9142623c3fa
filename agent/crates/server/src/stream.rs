//! A response that is sent while it is being written, so that neither side holds all of it and
//! sending starts at once.

use std::fmt;
use std::io;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;

/// Bytes sent at once.
const CHUNK: usize = 64 * 1024;
/// Chunks that wait for a slow reader; the writer waits after that.
const WAITING: usize = 4;

/// Writes a response, on a thread that may block.
#[derive(Debug)]
pub(super) struct Writer {
    chunk: String,
    chunks: mpsc::Sender<io::Result<Bytes>>,
}

/// A writer and the body that it writes. Writing fails once the client has disconnected.
pub(super) fn body() -> (Writer, Body) {
    let (chunks, receiver) = mpsc::channel(WAITING);
    let body = stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    (Writer { chunk: String::with_capacity(CHUNK), chunks }, Body::from_stream(body))
}

// === impl Writer ===

impl Writer {
    /// Sends the rest.
    pub(super) fn finish(mut self) -> fmt::Result {
        self.send()
    }

    /// Aborts the response, so that the client sees that it is incomplete.
    pub(super) fn abort(self) {
        // The client may have disconnected already.
        let _ = self.chunks.blocking_send(Err(io::Error::other("the answer is not whole")));
    }

    /// Whether the client still reads.
    pub(super) fn is_wanted(&self) -> bool {
        !self.chunks.is_closed()
    }

    fn send(&mut self) -> fmt::Result {
        let full = std::mem::replace(&mut self.chunk, String::with_capacity(CHUNK));
        self.chunks.blocking_send(Ok(Bytes::from(full))).map_err(|_| fmt::Error)
    }
}

impl fmt::Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.chunk.len() + text.len() > CHUNK && !self.chunk.is_empty() {
            self.send()?;
        }
        self.chunk.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use std::fmt::Write as _;

    #[tokio::test]
    async fn what_is_written_arrives_in_order_whatever_its_size() {
        let (mut writer, body) = body();
        let long = "long".repeat(CHUNK);
        let expected = format!("{long}{}", (0..50_000).map(|n| n.to_string()).collect::<String>());
        let writing = tokio::task::spawn_blocking(move || {
            writer.write_str(&long)?;
            for number in 0..50_000 {
                write!(writer, "{number}")?;
            }
            writer.finish()
        });
        let read = to_bytes(body, usize::MAX).await.expect("whole");
        writing.await.expect("no panic").expect("written");
        assert_eq!(read, expected.as_bytes());
    }

    #[tokio::test]
    async fn a_writer_stops_when_the_client_is_gone() {
        let (mut writer, body) = body();
        drop(body);
        let writing = tokio::task::spawn_blocking(move || {
            (0..=1_000_000).find(|_| writer.write_str("words ").is_err())
        });
        let at = writing.await.expect("no panic").expect("it stops");
        assert!(at < CHUNK, "the first full chunk is not taken");
    }

    #[tokio::test]
    async fn an_aborted_response_is_incomplete() {
        let (mut writer, body) = body();
        let writing = tokio::task::spawn_blocking(move || {
            writer.write_str("half of").expect("room");
            writer.abort();
        });
        assert!(to_bytes(body, usize::MAX).await.is_err());
        writing.await.expect("no panic");
    }
}
