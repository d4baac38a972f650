//! Reading a whole request body into one piece of memory, with a bound and a clock.
//!
//! A length announced up front is refused before a byte is read and allocated once otherwise; in the common case of a
//! body that arrives in one frame nothing is copied at all. The clock is for a client that stops in mid-body: without it
//! a handful of them could hold memory for ever.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

/// Why a body could not be read.
#[derive(Debug)]
pub(crate) enum CollectError {
    /// It is longer than allowed.
    TooLarge,
    /// The client stopped sending.
    Slow,
    /// The connection or the framing broke.
    Broken,
}

/// Most bytes allocated on a client's word alone; more follows as bytes come.
const TRUSTED_LENGTH: u64 = 4 << 20;

/// Reads `body`, at most `limit` bytes, waiting at most `patience` for each frame.
pub(crate) async fn collect(
    mut body: Incoming,
    limit: u64,
    patience: Duration,
) -> Result<Bytes, CollectError> {
    let announced = body.size_hint().lower();
    if announced > limit {
        return Err(CollectError::TooLarge);
    }
    let Some(first) = next(&mut body, patience).await? else {
        return Ok(Bytes::new());
    };
    if first.len() as u64 > limit {
        return Err(CollectError::TooLarge);
    }
    if body.is_end_stream() || (announced > 0 && first.len() as u64 == announced) {
        return Ok(first);
    }
    let room = announced.min(TRUSTED_LENGTH).max(2 * first.len() as u64);
    let mut whole = BytesMut::with_capacity(usize::try_from(room).unwrap_or(0));
    whole.extend_from_slice(&first);
    drop(first);
    while let Some(data) = next(&mut body, patience).await? {
        if (whole.len() + data.len()) as u64 > limit {
            return Err(CollectError::TooLarge);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// The next data frame; trailers of a request carry nothing that a server waits for and are passed over.
async fn next(body: &mut Incoming, patience: Duration) -> Result<Option<Bytes>, CollectError> {
    loop {
        match timeout(patience, body.frame()).await {
            Err(_) => return Err(CollectError::Slow),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => return Err(CollectError::Broken),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}
