//! The pass over new and waiting requests: late binding.
//!
//! A request goes to the endpoint that costs least among *all*, and only if that one is open. If it is not, the request
//! stays here, where it can still be ordered and can still change its mind, and claims its work on the endpoint it
//! waits for, so that those behind it see a longer queue there and spill to others. It does not wait longer for a warm
//! endpoint than the wait is worth: once it has passed over an open endpoint for as many seconds as that one is more
//! expensive, it goes there. With every endpoint open and nobody waiting this is plain push routing.

use std::sync::Arc;

use super::Pool;
use super::charge::Flight;
use super::decide::{Choice, Hold, Verdict};
use crate::criticality::{Waiting, sheddable};
use crate::decision::{Decision, RejectReason};
use crate::id::Ticket;
use crate::time::{Time, seconds};

/// Of the longest waiting, how many are tried when it is their turn.
const AGED_TRIES: usize = 8;

impl Pool {
    /// Judges whatever may have changed; decisions go to `out`.
    pub(super) fn pass(&mut self, now: Time) {
        self.presume(now);
        self.expire(now);
        let few = self.queue.len() <= self.config.flow.window;
        let alone = self.fresh.len() == 1 && (self.queue.is_empty() || (few && !self.dirty));
        let scan = self.dirty || !(self.fresh.is_empty() || alone);
        self.scratch.shadow.clear();
        while let Some(waiting) = self.fresh.pop_front() {
            let verdict = self.judge(now, &waiting);
            match verdict {
                Verdict::Go(choice) if alone || choice.at_once => {
                    self.dispatch(now, &waiting, *choice);
                }
                verdict => self.put(now, waiting, verdict),
            }
        }
        if scan && !self.queue.is_empty() {
            self.scan(now);
        }
        while self.queue.len() > self.config.flow.max_requests {
            let Some((_, ticket)) = self.queue.least() else {
                break;
            };
            self.reject_waiting(now, ticket, RejectReason::QueueFull);
        }
        self.dirty = false;
        self.wake = self.next_wake(now);
    }

    /// A new request that cannot go at once, or not before those that wait.
    fn put(&mut self, now: Time, mut waiting: Waiting, verdict: Verdict) {
        match verdict {
            Verdict::Reject(reason) => return self.reject(now, waiting.ticket, reason),
            Verdict::Go(choice) => waiting.least_prefill = choice.sizes.seconds,
            Verdict::Wait(hold) => note(now, &mut waiting, hold),
            Verdict::Nobody if waiting.request.exclude.is_empty() => {
                waiting.nobody_since = Some(now);
            }
            // A retry that has tried them all need not wait for the answer.
            Verdict::Nobody => {
                return self.reject(now, waiting.ticket, RejectReason::NoReadyEndpoint);
            }
        }
        let ticket = waiting.ticket;
        self.queue.push(waiting);
        self.set_timer(now, ticket);
    }

    /// Looks at those that wait, in order.
    fn scan(&mut self, now: Time) {
        self.scratch.shadow.clear();
        let (mut after, mut looked) = (None, 0);
        while let Some(place) = self.queue.after(after) {
            if !self.any_open(now) && self.ready(now) > 0 {
                self.shed(now);
                return;
            }
            if self.turns.aged_is_due() && self.dispatch_aged(now) {
                continue;
            }
            after = Some(place);
            looked += usize::from(!self.judge_waiting(now, place.ticket, false));
            if looked >= self.config.flow.window {
                return;
            }
        }
    }

    /// The longest waiting go first, if they wait for too long.
    fn dispatch_aged(&mut self, now: Time) -> bool {
        let bound = self.config.flow.starvation_bound;
        let aged: Vec<Ticket> = self
            .queue
            .by_age()
            .take_while(|waiting| now - waiting.arrived > bound)
            .take(AGED_TRIES)
            .map(|waiting| waiting.ticket)
            .collect();
        aged.into_iter()
            .any(|ticket| self.judge_waiting(now, ticket, true))
    }

    /// Judges one that waits. Returns whether it left the queue for an endpoint.
    fn judge_waiting(&mut self, now: Time, ticket: Ticket, aged: bool) -> bool {
        let Some(waiting) = self.queue.get(ticket).cloned() else {
            return false;
        };
        match self.judge(now, &waiting) {
            Verdict::Go(choice) => {
                self.queue.remove(ticket);
                self.turns.dispatched(aged);
                self.dispatch(now, &waiting, *choice);
                return true;
            }
            Verdict::Wait(hold) => {
                if !aged {
                    self.scratch.claim(&hold);
                }
                if let Some(waiting) = self.queue.get_mut(ticket) {
                    note(now, waiting, hold);
                }
            }
            Verdict::Nobody => {
                let since = waiting.nobody_since.unwrap_or(now);
                if now >= since + self.config.flow.empty_ttl {
                    self.reject_waiting(now, ticket, RejectReason::NoReadyEndpoint);
                } else if let Some(waiting) = self.queue.get_mut(ticket) {
                    waiting.nobody_since = Some(since);
                }
            }
            Verdict::Reject(reason) => self.reject_waiting(now, ticket, reason),
        }
        self.set_timer(now, ticket);
        false
    }

    fn dispatch(&mut self, now: Time, waiting: &Waiting, choice: Choice) {
        let Some(&winner) = choice.endpoints.first() else {
            return;
        };
        let (ticket, request) = (waiting.ticket, &waiting.request);
        self.dispatches += 1;
        let number = self.dispatches;
        if let Some(it) = self.endpoint_mut(winner) {
            it.last_dispatch = number;
            if choice.cold {
                it.last_cold = number;
            }
        }
        if request.kind == crate::request::RequestKind::Inference {
            self.learned.dispatched(now, choice.sizes);
        }
        let charge = self.charge(now, ticket, request, winner, choice.hit_blocks);
        self.flights.insert(
            ticket,
            Flight {
                request: Arc::clone(request),
                charge,
                failed: false,
            },
        );
        self.policy.taken(winner);
        self.out.push_back(Decision::Dispatch {
            ticket,
            endpoints: choice.endpoints,
            explanation: choice.explanation,
            queued: now - waiting.arrived,
            predicted_ttft: choice.ttft,
            hit_tokens: choice.sizes.hit as u32,
        });
    }

    fn reject(&mut self, now: Time, ticket: Ticket, reason: RejectReason) {
        let retry_after = self.relief(now);
        self.out.push_back(Decision::Reject {
            ticket,
            reason,
            retry_after,
        });
    }

    fn reject_waiting(&mut self, now: Time, ticket: Ticket, reason: RejectReason) {
        if self.queue.remove(ticket).is_some() {
            self.reject(now, ticket, reason);
        }
    }

    /// No endpoint is open: those that may be refused are.
    fn shed(&mut self, now: Time) {
        while let Some((_, ticket)) = self
            .queue
            .least()
            .filter(|(priority, _)| sheddable(*priority))
        {
            self.reject_waiting(now, ticket, RejectReason::SheddableSaturated);
        }
    }

    /// Looks at those whose timer is over: refuses those that waited too long or will be too late.
    fn expire(&mut self, now: Time) {
        while let Some((_, ticket)) = self.queue.first_timer().filter(|(time, _)| *time <= now) {
            let Some(waiting) = self.queue.get(ticket) else {
                return;
            };
            if waiting
                .request
                .deadline
                .is_some_and(|deadline| now >= deadline)
            {
                self.reject_waiting(now, ticket, RejectReason::DeadlineUnreachable);
            } else if now >= waiting.arrived + self.config.flow.request_ttl {
                self.reject_waiting(now, ticket, RejectReason::QueueTtl);
            } else if waiting.nobody_since.is_some() {
                self.judge_waiting(now, ticket, true);
            } else {
                self.dirty = true;
                self.set_timer(now, ticket);
            }
        }
    }

    /// Sets the timer of one that waits to the next moment that matters to it.
    fn set_timer(&mut self, now: Time, ticket: Ticket) {
        let Some(waiting) = self.queue.get(ticket) else {
            return;
        };
        let moments = [
            Some(waiting.arrived + self.config.flow.request_ttl),
            waiting.request.deadline,
            waiting
                .nobody_since
                .map(|since| since + self.config.flow.empty_ttl),
            waiting.patient_until,
        ];
        let next = moments
            .into_iter()
            .flatten()
            .filter(|&moment| moment > now)
            .min();
        self.queue.set_timer(ticket, next);
    }

    /// When something changes without an event.
    fn next_wake(&self, now: Time) -> Option<Time> {
        let first = self.queue.first_timer().map(|(time, _)| time);
        let presumed = self.presumed.first().map(|(time, _)| *time);
        let endpoints = self
            .slots
            .iter()
            .filter_map(|slot| slot.endpoint.as_ref())
            .flat_map(|endpoint| {
                [
                    endpoint.monitor.wake_at(now),
                    endpoint.depth.forgets_at(self.config.scrape_ttl),
                ]
            });
        let moments = endpoints
            .chain([first, presumed, self.siblings.wake_at()])
            .flatten()
            .filter(|&moment| moment > now);
        if self.queue.is_empty() {
            None
        } else {
            moments.min()
        }
    }
}

/// Remembers what a request waits for.
fn note(now: Time, waiting: &mut Waiting, hold: Hold) {
    waiting.least_prefill = hold.least_prefill;
    waiting.nobody_since = None;
    waiting.patient_until = None;
    if let Some(patience) = hold.patience {
        let since = *waiting.held_since.get_or_insert(now);
        // A little later, so that the comparison that was made now comes out the other way then.
        waiting.patient_until = Some(since + seconds(patience + 1e-6));
    }
}
