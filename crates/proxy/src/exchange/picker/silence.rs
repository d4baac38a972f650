//! The clock of a picker that owes something.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// How long a picker has been silent while it owed something.
#[derive(Debug)]
pub(super) struct Silence {
    pub(super) limit: Duration,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: None,
            timer: None,
        }
    }

    /// It has said something, or owes nothing.
    pub(super) fn reset(&mut self) {
        self.since = None;
    }

    /// It owes something and says nothing; whether that has lasted too long.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = *self.since.get_or_insert_with(Instant::now) + self.limit;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // The timer runs until the earliest moment at which it could be over, and is set on only then.
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= deadline {
                return true;
            }
            timer.as_mut().reset(deadline);
        }
        false
    }
}
