//! First tokens that never come.
//!
//! The prompt of a request that streams counts as pending until its first token. If a host loses that event, the
//! endpoint would stay closed for ever; so after two minutes in which an engine has surely computed any prompt, the
//! prefill is presumed done. Only the backlog goes back: the request itself stays charged until it ends, for answers may
//! be long.

use std::time::Duration;

use super::Pool;
use crate::id::Ticket;
use crate::time::Time;

/// When a prefill is presumed done.
const LOST_AFTER: Duration = Duration::from_secs(120);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);

impl Pool {
    /// Looks for such requests, now and then, while others wait.
    pub(super) fn presume_lost(&mut self, now: Time) {
        if self.look_for_lost.is_some_and(|at| now < at) {
            return;
        }
        self.look_for_lost = Some(now + LOOK_EVERY);
        let lost: Vec<Ticket> = self
            .flights
            .iter()
            .filter(|(_, flight)| {
                let charge = flight.charge.as_ref();
                charge.is_some_and(|it| !it.started && now - it.at > LOST_AFTER)
            })
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in lost {
            self.with_charge(ticket, |pool, _, charge| pool.start(charge));
            self.dirty = true;
        }
    }
}
