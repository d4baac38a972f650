//! How bodies are sent.

use crate::proto::mode::processing_mode::BodySendMode;

/// How a proxy sends the bodies of one direction. gRPC bodies, message by message, are not spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It did not say.
    Unknown,
    /// Not at all.
    None,
    /// Piece by piece, each answered before the next.
    Streamed,
    /// In one message.
    Buffered,
    /// In one message, which may be only the first part.
    Partial,
    /// Piece by piece both ways.
    Duplex,
}

impl Mode {
    pub(super) fn of(number: i32) -> Option<Self> {
        match BodySendMode::try_from(number).ok()? {
            BodySendMode::None => Some(Self::None),
            BodySendMode::Streamed => Some(Self::Streamed),
            BodySendMode::Buffered => Some(Self::Buffered),
            BodySendMode::BufferedPartial => Some(Self::Partial),
            BodySendMode::FullDuplexStreamed => Some(Self::Duplex),
            BodySendMode::Grpc => None,
        }
    }
}
