//! Refusing requests whose length can be understood in two ways (request smuggling).
//!
//! RFC 9112, section 6.3: a message with both `Transfer-Encoding` and `Content-Length` "might indicate an attempt to
//! perform request smuggling". hyper takes the chunked reading, drops the length and closes the connection afterwards,
//! which is allowed, but leaves no trace that a service could see. We want a 400, as a proxy in front of us may have
//! taken the other reading. So this guard watches the bytes on their way to hyper, follows the framing of each message,
//! and when a head has both fields it spoils the second one's name: hyper then answers 400 and closes by itself.
//!
//! Everything else that is wrong with a head (two differing lengths, folded lines, a space before the colon, a coding
//! after `chunked`) hyper refuses on its own; tests hold it to that.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// No header name contains this byte, so every parser stops at it.
const SPOILED: u8 = 0;
/// How long, and for how many bytes, a client may finish sending what nobody reads any more.
const LINGER: (Duration, usize) = (Duration::from_secs(1), 4 << 20);
/// Longest line kept to be understood; `Content-Length` and `Transfer-Encoding` lines that matter are far shorter.
const LINE: usize = 64;

/// Follows the messages of one client connection.
#[derive(Debug)]
pub(crate) struct Framing {
    state: State,
    line: Vec<u8>,
    head: Head,
}

#[derive(Debug, Default)]
struct Head {
    lines: u32,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the lines of a head.
    Head,
    /// In a body with this much left.
    Fixed(u64),
    /// In the line that gives a chunk's size.
    ChunkSize,
    /// In a chunk, its line end included.
    Chunk(u64),
    /// In the lines after the last chunk.
    Trailers,
    /// No HTTP any more, or not understood: hyper is left to it.
    Blind,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            state: State::Head,
            line: Vec::with_capacity(LINE),
            head: Head::default(),
        }
    }
}

impl Framing {
    /// Looks at bytes that have just arrived, and spoils them where they must not be understood.
    pub(crate) fn watch(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Blind => return,
                State::Fixed(left) => {
                    let (step, left) = skip(left, bytes.len() - at);
                    at += step;
                    self.state = if left == 0 {
                        State::Head
                    } else {
                        State::Fixed(left)
                    };
                }
                State::Chunk(left) => {
                    let (step, left) = skip(left, bytes.len() - at);
                    at += step;
                    self.state = if left == 0 {
                        State::ChunkSize
                    } else {
                        State::Chunk(left)
                    };
                }
                State::Head | State::ChunkSize | State::Trailers => {
                    let end = memchr::memchr(b'\n', &bytes[at..]).map(|found| at + found + 1);
                    let part = at..end.unwrap_or(bytes.len());
                    let room = LINE.saturating_sub(self.line.len());
                    self.line
                        .extend_from_slice(&bytes[part.start..part.end.min(part.start + room)]);
                    at = part.end;
                    if end.is_some() && !self.line_ended() {
                        bytes[at - 1] = SPOILED;
                        self.state = State::Blind;
                    }
                }
            }
        }
    }

    /// Whether the client is in the middle of sending a head.
    fn in_head(&self) -> bool {
        self.state == State::Head && (self.head.lines > 0 || !self.line.is_empty())
    }

    /// Whether the client is in the middle of sending something.
    fn unfinished(&self) -> bool {
        self.state != State::Head || self.head.lines > 0
    }

    /// Takes a whole line; `false` when the message must be refused.
    fn line_ended(&mut self) -> bool {
        let line = std::mem::take(&mut self.line);
        let text = line.trim_ascii_end();
        let sound = match self.state {
            State::Head if text.is_empty() => {
                self.head_ended();
                true
            }
            State::Head => self.head.line(text),
            State::ChunkSize => {
                self.state = match chunk_size(text) {
                    Some(0) => State::Trailers,
                    Some(size) => State::Chunk(size.saturating_add(2)),
                    None => State::Blind,
                };
                true
            }
            State::Trailers if text.is_empty() => {
                self.state = State::Head;
                true
            }
            _ => true,
        };
        self.line = line;
        self.line.clear();
        sound
    }

    fn head_ended(&mut self) {
        // Empty lines before a request line are skipped (RFC 9112, section 2.2).
        if self.head.lines == 0 {
            return;
        }
        let head = std::mem::take(&mut self.head);
        self.state = match (head.chunked, head.length) {
            (true, _) => State::ChunkSize,
            (false, Some(length)) if length > 0 => State::Fixed(length),
            // What follows an upgrade may be anything.
            _ if head.upgrade => State::Blind,
            _ => State::Head,
        };
    }
}

impl Head {
    /// Takes a line of a head; `false` when it contradicts an earlier one.
    fn line(&mut self, line: &[u8]) -> bool {
        self.lines += 1;
        if self.lines == 1 {
            self.upgrade = line.starts_with(b"CONNECT ");
            return true;
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            return true;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.length = std::str::from_utf8(value)
                .ok()
                .and_then(|value| value.parse().ok())
                .or(Some(0));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        }
        !(self.chunked && self.length.is_some())
    }
}

/// How far to go in `here` bytes when `left` are to be skipped, and what is left then.
fn skip(left: u64, here: usize) -> (usize, u64) {
    let step = usize::try_from(left).unwrap_or(usize::MAX).min(here);
    (step, left - step as u64)
}

/// The size in a chunk's first line, before any extension.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// A client connection whose HTTP/1 framing is watched.
///
/// It also gives a client only so long to send a head, counted from its first byte. (hyper's own limit counts from the end
/// of the exchange before, so it would close connections that are merely idle.)
///
/// And it closes in good order: a client that is told 413 in the middle of its upload would get a reset instead of the
/// answer if we closed with its bytes unread, so for a moment what it sends is read and thrown away.
#[derive(Debug)]
pub(crate) struct Guarded<S> {
    io: S,
    framing: Framing,
    patience: Duration,
    head_due: Option<Pin<Box<Sleep>>>,
    linger: Option<Linger>,
}

#[derive(Debug)]
struct Linger {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<S> Guarded<S> {
    pub(crate) fn new(io: S, patience: Duration) -> Self {
        Self {
            io,
            framing: Framing::default(),
            patience,
            head_due: None,
            linger: None,
        }
    }

    fn head_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.framing.in_head() {
            self.head_due = None;
            return false;
        }
        let due = self
            .head_due
            .get_or_insert_with(|| Box::pin(sleep(self.patience)));
        due.as_mut().poll(cx).is_ready()
    }
}

impl Linger {
    fn poll<S: AsyncRead + Unpin>(&mut self, io: &mut S, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
        while self.left > 0 {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    self.left = self.left.saturating_sub(buf.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.until.as_mut().poll(cx),
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        this.framing.watch(&mut buf.filled_mut()[before..]);
        if read.is_pending() && this.head_overdue(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            if !this.framing.unfinished() {
                return Poll::Ready(Ok(()));
            }
        }
        let linger = this.linger.get_or_insert_with(|| Linger {
            until: Box::pin(sleep(LINGER.0)),
            left: LINGER.1,
        });
        linger.poll(&mut this.io, cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `step` bytes; says whether it was spoiled.
    fn spoiled(input: &[u8], step: usize) -> bool {
        let mut framing = Framing::default();
        let mut bytes = input.to_vec();
        for piece in bytes.chunks_mut(step) {
            framing.watch(piece);
        }
        bytes != input
    }

    #[test]
    fn both_lengths_in_one_head_are_spoiled_however_they_arrive() {
        let bad: [&[u8]; 6] = [
            b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nhost: a\r\nCONTENT-LENGTH: 5\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: x\r\nTransfer-Encoding: x\r\n\r\n",
            b"POST / HTTP/1.1\nContent-Length: 5\nTransfer-Encoding: chunked\n\n",
            b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nt: u\r\n\r\n\
              POST / HTTP/1.1\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n",
        ];
        for input in bad {
            for step in [1, 2, 3, 7, 16, 1000] {
                assert!(
                    spoiled(input, step),
                    "{step}: {}",
                    String::from_utf8_lossy(input)
                );
            }
        }
    }

    #[test]
    fn sound_messages_pass_untouched_even_when_a_body_looks_like_a_head() {
        let trap =
            b"\r\nPOST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut fixed =
            format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n", trap.len()).into_bytes();
        fixed.extend_from_slice(trap);
        fixed.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
        let mut chunked = format!(
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n",
            trap.len()
        )
        .into_bytes();
        chunked.extend_from_slice(trap);
        chunked.extend_from_slice(b"\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        for input in [&fixed[..], &chunked[..]] {
            for step in [1, 2, 3, 7, 16, 1000] {
                assert!(
                    !spoiled(input, step),
                    "{step}: {}",
                    String::from_utf8_lossy(input)
                );
            }
        }
    }
}
