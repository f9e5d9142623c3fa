//! A response that is sent while it is being written, so that neither side holds all of it and
//! sending starts at once; compressed if the client takes that.

use std::fmt;
use std::io::{self, Write as _};

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
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
    gzip: Option<GzEncoder<Vec<u8>>>,
    chunks: mpsc::Sender<io::Result<Bytes>>,
}

/// A writer and the body that it writes. Writing fails once the client has disconnected. With
/// `gzip` the body is compressed at the fastest level: a tenth of the bytes of `/metrics`.
pub(super) fn body(gzip: bool) -> (Writer, Body) {
    let (chunks, receiver) = mpsc::channel(WAITING);
    let body = stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    let gzip = gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast()));
    (Writer { chunk: String::with_capacity(CHUNK), gzip, chunks }, Body::from_stream(body))
}

// === impl Writer ===

impl Writer {
    /// Sends the rest.
    pub(super) fn finish(mut self) -> fmt::Result {
        self.send()?;
        match self.gzip.take() {
            Some(gzip) => {
                let rest = gzip.finish().map_err(|_| fmt::Error)?;
                self.chunks.blocking_send(Ok(Bytes::from(rest))).map_err(|_| fmt::Error)
            }
            None => Ok(()),
        }
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
        let ready = match &mut self.gzip {
            Some(gzip) => {
                gzip.write_all(self.chunk.as_bytes()).map_err(|_| fmt::Error)?;
                self.chunk.clear();
                std::mem::take(gzip.get_mut())
            }
            None => std::mem::replace(&mut self.chunk, String::with_capacity(CHUNK)).into_bytes(),
        };
        if ready.is_empty() {
            // Still in the compressor.
            return if self.is_wanted() { Ok(()) } else { Err(fmt::Error) };
        }
        self.chunks.blocking_send(Ok(Bytes::from(ready))).map_err(|_| fmt::Error)
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
        let (mut writer, body) = body(false);
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
        for gzip in [false, true] {
            let (mut writer, body) = body(gzip);
            drop(body);
            let writing = tokio::task::spawn_blocking(move || {
                (0..=1_000_000).find(|_| writer.write_str("words ").is_err())
            });
            let at = writing.await.expect("no panic").expect("it stops");
            assert!(at < CHUNK, "the first full chunk is not taken");
        }
    }

    #[tokio::test]
    async fn a_compressed_response_is_the_same_text() {
        let lines: Vec<String> = (0..100_000).map(|n| format!("line {n}\n")).collect();
        let text = lines.concat();
        let (mut writer, body) = body(true);
        let written = text.clone();
        let writing = tokio::task::spawn_blocking(move || {
            for line in written.split_inclusive('\n') {
                writer.write_str(line)?;
            }
            writer.finish()
        });
        let read = to_bytes(body, usize::MAX).await.expect("whole");
        writing.await.expect("no panic").expect("written");
        assert!(read.len() * 2 < text.len(), "{} of {} bytes", read.len(), text.len());
        let mut plain = String::new();
        let mut reader = flate2::read::GzDecoder::new(&*read);
        io::Read::read_to_string(&mut reader, &mut plain).expect("gzip");
        assert!(plain == text);
    }

    #[tokio::test]
    async fn an_aborted_response_is_incomplete() {
        let (mut writer, body) = body(false);
        let writing = tokio::task::spawn_blocking(move || {
            writer.write_str("half of").expect("room");
            writer.abort();
        });
        assert!(to_bytes(body, usize::MAX).await.is_err());
        writing.await.expect("no panic");
    }
}
