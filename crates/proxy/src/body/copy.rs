//! A copy of a streamed request body, for a mirror.
//!
//! The copy gets the client's own frames as they pass to the server: memory is shared, not copied. The server never waits
//! for a mirror. What a mirror has not taken yet is held within two bounds, one for each copy and one for all copies of a
//! worker; a mirror that falls behind further loses the request, and nobody else does.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Most bytes that a copy of a stream may lag behind.
const WINDOW: usize = 1 << 20;

/// What copies of one worker may take up together.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: Cell<usize>,
    copies: Cell<usize>,
}

/// A part of the room, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    room: Rc<Room>,
    bytes: usize,
    copies: usize,
}

impl Room {
    pub(crate) fn new(bytes: usize, copies: usize) -> Rc<Self> {
        Rc::new(Self {
            bytes: Cell::new(bytes),
            copies: Cell::new(copies),
        })
    }

    /// Room for one more copy, whose body is held as it is and has this length.
    pub(crate) fn copy(self: &Rc<Self>, bytes: usize) -> Option<Share> {
        self.take(bytes, 1)
    }

    fn take(self: &Rc<Self>, bytes: usize, copies: usize) -> Option<Share> {
        let left = (
            self.bytes.get().checked_sub(bytes)?,
            self.copies.get().checked_sub(copies)?,
        );
        self.bytes.set(left.0);
        self.copies.set(left.1);
        Some(Share {
            room: self.clone(),
            bytes,
            copies,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.bytes.set(self.room.bytes.get() + self.bytes);
        self.room.copies.set(self.room.copies.get() + self.copies);
    }
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<(Bytes, Share)>,
    held: usize,
    end: Option<End>,
    begun: bool,
    waiting: Option<Waker>,
}

/// How a copy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
}

impl State {
    fn finish(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
            if end == End::Broken {
                self.frames.clear();
            }
            self.wake();
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

/// The side on which the client's frames pass. A writer that is dropped before [`Writer::finish`] breaks the copy off.
#[derive(Debug)]
pub(crate) struct Writer {
    state: Rc<RefCell<State>>,
    room: Rc<Room>,
}

/// The body of the copy.
#[derive(Debug, Clone)]
pub(crate) struct Reader(Rc<RefCell<State>>);

/// A copy that broke off: the client did, or the mirror was too slow.
#[derive(Debug, thiserror::Error)]
#[error("the copy broke off")]
pub(crate) struct Lost;

/// The two sides of a new copy.
pub(crate) fn channel(room: &Rc<Room>) -> (Writer, Reader) {
    let state = Rc::new(RefCell::new(State::default()));
    let writer = Writer {
        state: state.clone(),
        room: room.clone(),
    };
    (writer, Reader(state))
}

impl Writer {
    /// A frame passes.
    pub(crate) fn pass(&self, data: &Bytes) {
        let mut state = self.state.borrow_mut();
        if state.end.is_some() {
            return;
        }
        let share = (state.held + data.len() <= WINDOW)
            .then(|| self.room.take(data.len(), 0))
            .flatten();
        match share {
            Some(share) => {
                state.held += data.len();
                state.frames.push_back((data.clone(), share));
                state.wake();
            }
            None => state.finish(End::Broken),
        }
    }

    /// All of the body has passed.
    pub(crate) fn finish(&self) {
        self.state.borrow_mut().finish(End::Whole);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.state.borrow_mut().finish(End::Broken);
    }
}

impl Reader {
    /// The same body for another attempt, if none of it has been sent.
    pub(crate) fn again(&self) -> Option<Self> {
        (!self.0.borrow().begun).then(|| self.clone())
    }

    /// Nobody will read on.
    pub(crate) fn close(&self) {
        let mut state = self.0.borrow_mut();
        state.finish(End::Broken);
        state.frames.clear();
    }
}

impl Body for Reader {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut state = self.0.borrow_mut();
        state.begun = true;
        if let Some((data, _share)) = state.frames.pop_front() {
            state.held -= data.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match state.end {
            Some(End::Whole) => Poll::Ready(None),
            Some(End::Broken) => Poll::Ready(Some(Err(Lost.into()))),
            None => {
                state.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.borrow();
        state.end == Some(End::Whole) && state.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(reader: &mut Reader) -> String {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(reader).poll_frame(&mut cx) {
            Poll::Pending => "pending".to_owned(),
            Poll::Ready(None) => "end".to_owned(),
            Poll::Ready(Some(Err(error))) => error.to_string(),
            Poll::Ready(Some(Ok(frame))) => {
                String::from_utf8_lossy(frame.data_ref().expect("data")).into_owned()
            }
        }
    }

    #[test]
    fn frames_pass_in_order_and_give_their_room_back() {
        let room = Room::new(4, 1);
        let (writer, mut reader) = channel(&room);
        assert_eq!(next(&mut reader), "pending");
        writer.pass(&Bytes::from_static(b"ab"));
        writer.pass(&Bytes::from_static(b"cd"));
        assert_eq!(room.bytes.get(), 0);
        assert_eq!(next(&mut reader), "ab");
        assert_eq!(room.bytes.get(), 2);
        writer.finish();
        assert_eq!(
            (next(&mut reader), next(&mut reader)),
            ("cd".into(), "end".into())
        );
        assert_eq!(room.bytes.get(), 4);
    }

    #[test]
    fn a_copy_that_lags_is_lost_and_frees_what_it_held() {
        let room = Room::new(3, 1);
        let (writer, mut reader) = channel(&room);
        writer.pass(&Bytes::from_static(b"ab"));
        writer.pass(&Bytes::from_static(b"cd"));
        assert_eq!(next(&mut reader), "the copy broke off");
        assert_eq!(room.bytes.get(), 3);
        writer.pass(&Bytes::from_static(b"e"));
        writer.finish();
        assert_eq!(next(&mut reader), "the copy broke off");
    }

    #[test]
    fn no_copy_lags_more_than_its_window() {
        let room = Room::new(usize::MAX, 1);
        let (writer, mut reader) = channel(&room);
        let frame = Bytes::from(vec![0; WINDOW / 4]);
        for _ in 0..4 {
            writer.pass(&frame);
        }
        assert_eq!(next(&mut reader).len(), frame.len());
        writer.pass(&frame);
        writer.pass(&frame);
        assert_eq!(next(&mut reader), "the copy broke off");
    }

    #[test]
    fn what_breaks_on_one_side_breaks_on_the_other() {
        let room = Room::new(9, 1);
        let (writer, mut reader) = channel(&room);
        writer.pass(&Bytes::from_static(b"ab"));
        drop(writer);
        assert_eq!(next(&mut reader), "the copy broke off");
        let (writer, reader) = channel(&room);
        assert!(reader.again().is_some());
        writer.pass(&Bytes::from_static(b"ab"));
        reader.close();
        writer.pass(&Bytes::from_static(b"cd"));
        assert_eq!(room.bytes.get(), 9);
    }

    #[test]
    fn only_so_many_copies_have_room() {
        let room = Room::new(10, 2);
        let first = room.copy(3);
        let second = room.copy(3);
        assert!(first.is_some() && second.is_some());
        assert!(room.copy(0).is_none());
        drop(first);
        assert!(room.copy(8).is_none());
        assert!(room.copy(7).is_some());
    }
}
