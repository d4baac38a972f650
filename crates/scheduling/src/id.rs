//! Small names for endpoints, requests and adapters. Addresses and strings live outside the core.

/// One endpoint of a pool. The index is dense and reused; the generation tells its users apart.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EndpointId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl EndpointId {
    /// The dense index: the smallest free one when the endpoint joined.
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// How many endpoints had this index before.
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

/// One request from `arrive` to its end. Never reused, ascending in the order of arrival.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Ticket(pub(crate) u64);

impl Ticket {
    /// The number itself, for logs.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Another gateway over the same pool. One that starts anew is a new sibling: its tickets begin again.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SiblingId(pub u64);

/// A LoRA adapter: a hash of its name.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct AdapterKey(pub u64);
