//! A body as it gathers, and as it goes back.

use bytes::{Bytes, BytesMut};

use super::PIECE;

/// Pieces of a body in one. A body that comes in one piece is never copied, so that a proxy's buffered 64 KiB cost
/// nothing; from the second piece on the bytes are put together, which also keeps a body of tiny pieces from holding
/// on to the buffers they came in.
#[derive(Debug, Default)]
pub(super) enum Gathered {
    #[default]
    Empty,
    One(Bytes),
    Many(BytesMut),
}

impl Gathered {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(bytes) => bytes.len(),
            Self::Many(bytes) => bytes.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        match std::mem::take(self) {
            Self::Empty => *self = Self::One(piece),
            Self::One(first) => {
                let mut all = BytesMut::with_capacity((first.len() + piece.len()) * 2);
                all.extend_from_slice(&first);
                all.extend_from_slice(&piece);
                *self = Self::Many(all);
            }
            Self::Many(mut all) => {
                all.extend_from_slice(&piece);
                *self = Self::Many(all);
            }
        }
    }

    /// All of it; it also stays here.
    pub(super) fn whole(&mut self) -> Bytes {
        let whole = self.take();
        *self = Self::One(whole.clone());
        whole
    }

    /// All of it; nothing stays.
    pub(super) fn take(&mut self) -> Bytes {
        match std::mem::take(self) {
            Self::Empty => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes.freeze(),
        }
    }
}

/// Cuts a body into pieces that fit into replies. One that fits into a single reply goes in one; slices of what is there
/// otherwise.
pub(super) fn split(parts: &[Bytes; 3]) -> impl Iterator<Item = Bytes> {
    let total: usize = parts.iter().map(Bytes::len).sum();
    let one = parts[1].is_empty() && parts[2].is_empty();
    let parts = if total <= PIECE && !one {
        [parts.concat().into(), Bytes::new(), Bytes::new()]
    } else {
        parts.clone()
    };
    parts.into_iter().flat_map(|part: Bytes| {
        let count = part.len().div_ceil(PIECE);
        (0..count).map(move |index| {
            let end = ((index + 1) * PIECE).min(part.len());
            part.slice(index * PIECE..end)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_piece_is_not_copied_and_many_are_put_together() {
        let piece = Bytes::from(vec![7; 100]);
        let mut body = Gathered::default();
        body.push(Bytes::new());
        assert!(body.is_empty());
        body.push(piece.clone());
        assert_eq!(body.whole().as_ptr(), piece.as_ptr());
        body.push(piece.clone());
        body.push(piece);
        assert_eq!((body.len(), body.whole().len()), (300, 300));
        assert_eq!(body.take().len(), 300);
        assert!(body.is_empty());
    }

    #[test]
    fn pieces_are_short_in_order_and_slices() {
        let part = |n: usize| Bytes::from(vec![u8::try_from(n % 251).unwrap(); n]);
        for sizes in [
            [0, 0, 0],
            [10, 5, 10],
            [PIECE, 0, 0],
            [PIECE, 1, 1],
            [200_000, 3, 70_000],
        ] {
            let parts = sizes.map(part);
            let pieces: Vec<Bytes> = split(&parts).collect();
            assert!(
                pieces
                    .iter()
                    .all(|piece| !piece.is_empty() && piece.len() <= PIECE)
            );
            assert_eq!(pieces.concat(), parts.concat(), "{sizes:?}");
        }
        let parts = [part(200_000), Bytes::new(), Bytes::new()];
        assert_eq!(split(&parts).next().unwrap().as_ptr(), parts[0].as_ptr());
        assert_eq!(split(&[part(10), part(5), part(10)]).count(), 1);
    }
}
