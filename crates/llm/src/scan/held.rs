//! Bytes kept until they can be judged, bounded.

/// What is kept from the front.
const HEAD: usize = 64 * 1024;
/// What is kept from the end, once the front is full.
const TAIL: usize = 8 * 1024;

/// A line or document: whole up to 64 KiB, else its two ends.
#[derive(Debug, Default)]
pub(crate) struct Held {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Held {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let (front, back) = bytes.split_at(bytes.len().min(HEAD - self.head.len()));
        self.head.extend_from_slice(front);
        if back.is_empty() {
            return;
        }
        let last = back
            .get(back.len().saturating_sub(TAIL)..)
            .unwrap_or_default();
        // Cutting only when twice the length is reached moves each byte at most twice.
        if self.tail.len() + last.len() > 2 * TAIL {
            let keep = TAIL.saturating_sub(last.len());
            self.tail.drain(..self.tail.len().saturating_sub(keep));
        }
        self.tail.extend_from_slice(last);
    }

    pub(crate) fn clear(&mut self) {
        self.head.clear();
        self.tail = Vec::new();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// All bytes, if none were dropped.
    pub(crate) fn whole(&self) -> Option<&[u8]> {
        self.tail.is_empty().then_some(self.head.as_slice())
    }

    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    pub(crate) fn tail(&self) -> &[u8] {
        &self.tail
    }
}
