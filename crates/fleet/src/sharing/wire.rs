//! What is said, and its framing: gRPC's, a flag byte and four bytes of length before each message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use routing::{PoolKey, PoolKind};
use scheduling::{AdapterKey, EndpointId, SharedEvent};

/// Where siblings talk. Another version has another path.
pub(super) const PATH: &str = "/pointsman.sharing.v1.Sharing/Tell";
/// Events of so many bytes go into one message.
const FULL: usize = 256 << 10;
/// Largest message taken: one event of a prompt of sixty million tokens.
const LARGEST: usize = 8 << 20;
/// The flag and the length.
const HEAD: usize = 5;

/// Some events of one pool.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Batch {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, tag = "3")]
    name: String,
    /// Who tells: one pool of one process, from its making on.
    #[prost(fixed64, tag = "4")]
    pub(super) teller: u64,
    /// What was told before counts no more: this, and what follows, is all.
    #[prost(bool, tag = "5")]
    pub(super) anew: bool,
    #[prost(message, repeated, tag = "6")]
    pub(super) events: Vec<Told>,
}

/// One event.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Told {
    #[prost(oneof = "What", tags = "1, 2, 3, 4, 5")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(message, tag = "1")]
    Dispatched(Dispatched),
    #[prost(uint64, tag = "2")]
    FirstToken(u64),
    #[prost(message, tag = "3")]
    Released(Released),
    #[prost(bool, tag = "4")]
    Alive(bool),
    #[prost(bool, tag = "5")]
    Forgotten(bool),
}

#[derive(Clone, PartialEq, Message)]
struct Dispatched {
    #[prost(uint64, tag = "1")]
    ticket: u64,
    #[prost(fixed64, tag = "2")]
    endpoint: u64,
    #[prost(fixed64, repeated, tag = "3")]
    prefix: Vec<u64>,
    #[prost(uint32, tag = "4")]
    prompt_tokens: u32,
    #[prost(uint32, tag = "5")]
    uncached_tokens: u32,
    #[prost(uint32, tag = "6")]
    output_tokens: u32,
    #[prost(fixed64, optional, tag = "7")]
    adapter: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Released {
    #[prost(uint64, tag = "1")]
    ticket: u64,
    #[prost(uint32, tag = "2")]
    output_tokens: u32,
    #[prost(bool, tag = "3")]
    computed: bool,
}

impl Batch {
    /// A batch without events.
    pub(super) fn new(key: &PoolKey, teller: u64, anew: bool) -> Self {
        let kind = match key.kind {
            PoolKind::Inference => 1,
            PoolKind::InferenceAlpha => 2,
            PoolKind::Service => 3,
            PoolKind::Urls => 4,
        };
        Self {
            kind,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            teller,
            anew,
            events: Vec::new(),
        }
    }

    /// Of which pool; `None` if it is of a kind that is not known.
    pub(super) fn key(&self) -> Option<PoolKey> {
        let kind = match self.kind {
            1 => PoolKind::Inference,
            2 => PoolKind::InferenceAlpha,
            3 => PoolKind::Service,
            4 => PoolKind::Urls,
            _ => return None,
        };
        Some(PoolKey {
            kind,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        })
    }

    /// The events in as many frames as it takes, at least one.
    pub(super) fn frames(mut self, events: Vec<Told>) -> Vec<(Bytes, usize)> {
        let mut frames = Vec::new();
        let mut bytes = 0;
        for event in events {
            bytes += event.encoded_len();
            self.events.push(event);
            if bytes >= FULL {
                frames.push(self.frame());
                self.events.clear();
                self.anew = false;
                bytes = 0;
            }
        }
        if !self.events.is_empty() || frames.is_empty() {
            frames.push(self.frame());
        }
        frames
    }

    /// One frame, and how many events are in it.
    fn frame(&self) -> (Bytes, usize) {
        let length = self.encoded_len();
        let mut frame = BytesMut::with_capacity(HEAD + length);
        frame.put_u8(0);
        frame.put_u32(length as u32);
        // A buffer that grows cannot be too small.
        let _ = self.encode(&mut frame);
        (frame.freeze(), self.events.len())
    }
}

impl Told {
    /// An event in words that every process understands; `None` if it is of a server that is no more.
    pub(crate) fn new(
        event: &SharedEvent,
        token: impl FnOnce(EndpointId) -> Option<u64>,
    ) -> Option<Self> {
        let what = match *event {
            SharedEvent::Dispatched {
                ticket,
                endpoint,
                ref prefix,
                prompt_tokens,
                uncached_tokens,
                output_tokens,
                adapter,
            } => What::Dispatched(Dispatched {
                ticket,
                endpoint: token(endpoint)?,
                prefix: prefix.to_vec(),
                prompt_tokens,
                uncached_tokens,
                output_tokens,
                adapter: adapter.map(|AdapterKey(key)| key),
            }),
            SharedEvent::FirstToken { ticket } => What::FirstToken(ticket),
            SharedEvent::Released {
                ticket,
                output_tokens,
                computed,
            } => What::Released(Released {
                ticket,
                output_tokens,
                computed,
            }),
            SharedEvent::Alive => What::Alive(true),
            SharedEvent::Forgotten => What::Forgotten(true),
        };
        Some(Self { what: Some(what) })
    }

    /// The event in the words of the pool at hand; `None` if it says nothing here.
    pub(super) fn event(
        self,
        endpoint: impl FnOnce(u64) -> Option<EndpointId>,
    ) -> Option<SharedEvent> {
        Some(match self.what? {
            What::Dispatched(it) => SharedEvent::Dispatched {
                ticket: it.ticket,
                endpoint: endpoint(it.endpoint)?,
                prefix: it.prefix.into(),
                prompt_tokens: it.prompt_tokens,
                uncached_tokens: it.uncached_tokens,
                output_tokens: it.output_tokens,
                adapter: it.adapter.map(AdapterKey),
            },
            What::FirstToken(ticket) => SharedEvent::FirstToken { ticket },
            What::Released(it) => SharedEvent::Released {
                ticket: it.ticket,
                output_tokens: it.output_tokens,
                computed: it.computed,
            },
            What::Alive(_) => SharedEvent::Alive,
            What::Forgotten(_) => SharedEvent::Forgotten,
        })
    }
}

/// What came is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what came is no message of a sibling")]
pub(super) struct Garbled;

/// Messages from pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Frames {
    pending: BytesMut,
}

impl Frames {
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.pending.extend_from_slice(piece);
    }

    /// The next whole message.
    pub(super) fn next(&mut self) -> Result<Option<Batch>, Garbled> {
        let Some((head, rest)) = self.pending.split_at_checked(HEAD) else {
            return Ok(None);
        };
        let mut length = &head[1..];
        let length = length.get_u32() as usize;
        if head[0] != 0 || length > LARGEST {
            return Err(Garbled);
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.pending.advance(HEAD);
        let message = self.pending.split_to(length);
        Batch::decode(&*message).map(Some).map_err(|_| Garbled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(kind: PoolKind) -> PoolKey {
        PoolKey {
            kind,
            namespace: "ai".to_owned(),
            name: "llama".to_owned(),
        }
    }

    fn told(ticket: u64, blocks: usize) -> Told {
        Told {
            what: Some(What::Dispatched(Dispatched {
                ticket,
                endpoint: 7,
                prefix: (0..blocks as u64).collect(),
                prompt_tokens: 100,
                uncached_tokens: 90,
                output_tokens: 10,
                adapter: Some(3),
            })),
        }
    }

    #[test]
    fn pools_keep_their_names() {
        for kind in [
            PoolKind::Inference,
            PoolKind::InferenceAlpha,
            PoolKind::Service,
            PoolKind::Urls,
        ] {
            let batch = Batch::new(&key(kind), 1, false);
            assert_eq!(batch.key(), Some(key(kind)));
        }
        let strange = Batch {
            kind: 99,
            ..Batch::default()
        };
        assert_eq!(strange.key(), None);
    }

    #[test]
    fn many_events_are_cut_into_messages_and_only_the_first_begins_anew() {
        let events: Vec<Told> = (0..100).map(|n| told(n, 1000)).collect();
        let frames = Batch::new(&key(PoolKind::Urls), 5, true).frames(events.clone());
        assert!(frames.len() > 2 && frames.len() < 10, "{}", frames.len());
        assert_eq!(frames.iter().map(|(_, count)| count).sum::<usize>(), 100);
        let mut read = Frames::default();
        let mut heard = Vec::new();
        for (at, (frame, _)) in frames.iter().enumerate() {
            read.push(frame);
            let batch = read.next().unwrap().unwrap();
            assert_eq!((batch.anew, batch.teller), (at == 0, 5));
            heard.extend(batch.events);
        }
        assert_eq!(heard, events);
        let nothing = Batch::new(&key(PoolKind::Urls), 5, true).frames(Vec::new());
        assert_eq!(nothing.len(), 1, "also to forget takes a message");
    }

    #[test]
    fn a_server_that_is_not_there_is_not_spoken_of() {
        let event = told(1, 2).event(|_| None);
        assert_eq!(event, None);
        assert_eq!(Told::default().event(|_| None), None, "of a later version");
    }

    #[test]
    fn what_is_no_message_is_found_out() {
        for bad in [
            &b"\x01\0\0\0\0"[..],
            b"\0\xff\xff\xff\xff",
            b"\0\0\0\0\x02\xff\xff",
            b"PRI * HTTP/2.0",
        ] {
            let mut read = Frames::default();
            read.push(bad);
            assert_eq!(read.next().unwrap_err(), Garbled, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_messages(
            sizes in proptest::collection::vec(0_usize..50, 1..10),
            step in 1_usize..64,
        ) {
            let mut bytes = Vec::new();
            for (at, size) in sizes.iter().enumerate() {
                let events = vec![told(at as u64, *size)];
                for (frame, _) in Batch::new(&key(PoolKind::Service), 1, false).frames(events) {
                    bytes.extend_from_slice(&frame);
                }
            }
            let mut read = Frames::default();
            let mut lengths = Vec::new();
            for piece in bytes.chunks(step) {
                read.push(piece);
                while let Some(batch) = read.next().unwrap() {
                    match &batch.events[0].what {
                        Some(What::Dispatched(it)) => lengths.push(it.prefix.len()),
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
            }
            prop_assert_eq!(lengths, sizes);
        }

        #[test]
        fn nonsense_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut read = Frames::default();
            read.push(&bytes);
            while let Ok(Some(batch)) = read.next() {
                let _ = batch.key();
                for event in batch.events {
                    let _ = event.event(|_| None);
                }
            }
        }
    }
}
