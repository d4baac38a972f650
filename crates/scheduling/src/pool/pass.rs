//! The pass over new and waiting requests: late binding.
//!
//! A request goes to the endpoint that costs least among *all*, and only if that one is open. If it is not, the request
//! stays here, where it can still be ordered and can still change its mind, and claims its work on the endpoint it
//! waits for, so that those behind it see a longer queue there and spill to others. The wait is in the comparison already,
//! so time that has passed is no reason to go elsewhere, as long as the endpoint works: under overload everybody waits,
//! and requests that give up on their prefix would make every endpoint compute and hold what others have. Only of an
//! endpoint that is silent is patience bounded: see [`decide`](super::decide). With every endpoint open and nobody
//! waiting this is plain push routing.
//!
//! A pass looks at a window of those that wait, however many they are: what an event costs does not grow with the queue.

use std::sync::Arc;

use super::Pool;
use super::charge::Flight;
use super::decide::{Choice, Hold, Verdict};
use crate::criticality::{Admission, Lineup, Rank, Waiting, sheddable};
use crate::decision::{Decision, RejectReason};
use crate::id::Ticket;
use crate::request::{Candidates, Request};
use crate::time::{Time, seconds};

/// Of the longest waiting, how many are tried when it is their turn.
const AGED_TRIES: usize = 8;

impl Pool {
    /// Judges whatever may have changed; decisions go to `out`.
    pub(super) fn pass(&mut self, now: Time) {
        self.presume(now);
        self.presume_lost(now);
        self.drain.pass(now);
        self.change_regime(now);
        self.expire(now);
        self.scratch.shadow.clear();
        if self.take_fresh(now) && !self.queue.is_empty() {
            self.scan(now);
        }
        while let Some(ticket) = self.queue.surplus(&self.config.flow) {
            self.reject_waiting(now, ticket, RejectReason::QueueFull);
        }
        self.evict(now);
        let rank = self
            .queue
            .least()
            .map_or(Rank::Top, |(priority, _)| self.rank(now, priority));
        let saturated =
            !self.queue.is_empty() && self.saturation(now, rank).is_some_and(|it| it >= 1.0);
        self.drain.saturated(now, saturated);
        self.dirty = false;
        self.wake = self.next_wake(now);
    }

    /// Judges those that just arrived. Returns whether those that wait have to be looked at.
    fn take_fresh(&mut self, now: Time) -> bool {
        let few = self.queue.len() <= self.config.flow.window;
        let single = self.fresh.len() == 1;
        let alone = single && (self.queue.is_empty() || (few && !self.dirty));
        let direct = alone || self.config.flow.admission == Admission::Immediate;
        let mut scan = self.dirty || self.fresh.len() > 1;
        while let Some(waiting) = self.fresh.pop_front() {
            match self.judge(now, &waiting) {
                Verdict::Go(choice) if direct || choice.at_once => {
                    self.dispatch(now, &waiting, *choice);
                }
                verdict => {
                    // It could go, but so might others that were not looked at for long.
                    scan |= matches!(verdict, Verdict::Go(_));
                    self.put(now, waiting, verdict);
                }
            }
        }
        scan
    }

    /// A new request that cannot go at once, or not before those that wait.
    fn put(&mut self, now: Time, mut waiting: Waiting, verdict: Verdict) {
        let ticket = waiting.ticket;
        let stays = match verdict {
            Verdict::Reject(reason) => Err(reason),
            Verdict::Go(choice) => {
                waiting.least_prefill = choice.sizes.seconds;
                waiting.tokens = choice.sizes.uncached();
                Ok(())
            }
            Verdict::Wait(hold) => {
                note(now, &mut waiting, hold);
                self.room(now, &waiting)
            }
            // A retry that has tried them all need not wait for the answer.
            Verdict::Nobody if !waiting.request.exclude.is_empty() => {
                Err(RejectReason::NoReadyEndpoint)
            }
            Verdict::Nobody if self.config.flow.admission == Admission::Immediate => {
                Err(RejectReason::NoReadyEndpoint)
            }
            Verdict::Nobody => {
                waiting.regime(now, true);
                self.room(now, &waiting)
            }
        };
        if let Err(reason) = stays {
            return self.reject(now, ticket, reason);
        }
        self.queue.push(waiting, &self.config.flow);
        self.set_timer(now, ticket);
    }

    /// Whether a newcomer may wait.
    fn room(&self, now: Time, waiting: &Waiting) -> Result<(), RejectReason> {
        let request = &waiting.request;
        if !self.queue.fits(request, &self.config.flow) {
            return Err(RejectReason::QueueFull);
        }
        let longest = self.config.flow.rules(request.priority).max_wait;
        match longest {
            Some(longest) if !waiting.nobody && self.expected_wait(now, request) > longest => {
                Err(RejectReason::WaitTooLong)
            }
            _ => Ok(()),
        }
    }

    /// Looks at those that wait, in order.
    fn scan(&mut self, now: Time) {
        self.scratch.shadow.clear();
        let mut lineup = Lineup::default();
        let (mut looked, mut aged_tried) = (0, false);
        let mut saturation = self.saturation(now, Rank::Top);
        while looked < self.config.flow.window && !self.queue.is_empty() {
            if saturation.is_some_and(|it| it >= 1.0) {
                break;
            }
            if !aged_tried && self.turns.aged_is_due() {
                aged_tried = !self.dispatch_aged(now);
                if !aged_tried {
                    saturation = self.saturation(now, Rank::Top);
                    continue;
                }
            }
            let Some(ticket) = self.queue.next(&mut lineup) else {
                break;
            };
            // Who is held back holds back those below: its place must not go to them.
            if self.held_back_at(now, ticket, saturation) {
                break;
            }
            if self.judge_waiting(now, ticket, false) {
                saturation = self.saturation(now, Rank::Top);
            } else {
                looked += 1;
            }
        }
        self.shed(now, saturation);
    }

    fn held_back_at(&self, now: Time, ticket: Ticket, top: Option<f64>) -> bool {
        let Some(waiting) = self.queue.get(ticket) else {
            return false;
        };
        self.ceiling_is_reached(now, waiting.request.priority, top)
    }

    /// Whether a class is held back; `top` is the saturation for the highest one.
    fn ceiling_is_reached(&self, now: Time, priority: i32, top: Option<f64>) -> bool {
        let saturation = match self.rank(now, priority) {
            Rank::Top => top,
            Rank::Lower => self.saturation(now, Rank::Lower),
        };
        saturation.is_some_and(|it| it >= self.config.flow.rules(priority).ceiling)
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
                self.queue.dispatched(ticket, choice.sizes.uncached());
                self.turns.dispatched(choice.sizes.seconds, aged);
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
                if let Some(waiting) = self.queue.get_mut(ticket) {
                    waiting.regime(now, true);
                }
                if self.budget_end(ticket).is_some_and(|end| now >= end) {
                    self.reject_waiting(now, ticket, RejectReason::NoReadyEndpoint);
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
            self.drain.dispatched(choice.sizes.seconds);
        }
        let charge = self.charge(now, ticket, request, winner, choice.hit_blocks);
        if choice.cold {
            self.give_cold(now, charge.as_ref());
        }
        self.flights.insert(
            ticket,
            Flight {
                request: Arc::clone(request),
                charge,
                failed: false,
            },
        );
        if self.config.flow.evict_running && sheddable(request.priority) {
            self.victims.run(request.priority, ticket);
        }
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
        use RejectReason::{NoReadyEndpoint, QueueFull, QueueTtl, WaitTooLong};
        let retry_after = self.relief(now);
        // Where there is nobody, that is the reason, whatever the queue's own would have been.
        let reason = match reason {
            QueueFull | QueueTtl | WaitTooLong if self.ready(now) == 0 => NoReadyEndpoint,
            reason => reason,
        };
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

    /// Those that may be refused are, where their band is held back.
    fn shed(&mut self, now: Time, top: Option<f64>) {
        while let Some((priority, ticket)) = self.queue.least() {
            let sheds = |request: &Request| {
                sheddable(priority)
                    && self.ceiling_is_reached(now, priority, top)
                    && (self.held_back(now, priority) || self.sheds(now, request))
            };
            if !self.queue.get(ticket).is_some_and(|it| sheds(&it.request)) {
                return;
            }
            self.reject_waiting(now, ticket, RejectReason::SheddableSaturated);
        }
    }

    /// When the pool becomes empty, or is no longer, everybody's budget of time begins anew.
    fn change_regime(&mut self, now: Time) {
        if self.queue.is_empty() {
            return;
        }
        let empty = self.ready(now) == 0;
        if empty == std::mem::replace(&mut self.empty, empty) {
            return;
        }
        let all: Vec<Ticket> = self.queue.by_age().map(|it| it.ticket).collect();
        for ticket in all {
            if let Some(waiting) = self.queue.get_mut(ticket) {
                // Those who may not go everywhere are judged one by one.
                if empty || waiting.request.candidates == Candidates::All {
                    waiting.regime(now, empty);
                }
            }
            self.set_timer(now, ticket);
        }
    }

    /// When the budget of time of one that waits is used up.
    fn budget_end(&self, ticket: Ticket) -> Option<Time> {
        let waiting = self.queue.get(ticket)?;
        let flow = &self.config.flow;
        let ttl = if waiting.nobody {
            flow.empty_ttl
        } else {
            let band = || flow.rules(waiting.request.priority).ttl;
            waiting.request.ttl.unwrap_or_else(band)
        };
        Some(waiting.since + ttl)
    }

    /// Looks at those whose timer is over: refuses those that waited too long or will be too late.
    fn expire(&mut self, now: Time) {
        while let Some((_, ticket)) = self.queue.first_timer().filter(|(time, _)| *time <= now) {
            let (Some(waiting), Some(end)) = (self.queue.get(ticket), self.budget_end(ticket))
            else {
                return;
            };
            let deadline = waiting.request.deadline;
            if deadline.is_some_and(|deadline| now >= deadline) {
                self.reject_waiting(now, ticket, RejectReason::DeadlineUnreachable);
            } else if waiting.nobody || latest(waiting).is_some_and(|latest| now >= latest) {
                self.judge_waiting(now, ticket, true);
            } else if now >= end {
                self.reject_waiting(now, ticket, RejectReason::QueueTtl);
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
            self.budget_end(ticket),
            latest(waiting),
            waiting.request.deadline,
            waiting.patient_until,
            self.evicts_for(waiting),
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
        if self.queue.is_empty() {
            return None;
        }
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
        let own = [
            first,
            presumed,
            self.siblings.wake_at(),
            self.victims.wake_at(),
            self.look_for_lost,
        ];
        endpoints
            .chain(own)
            .flatten()
            .filter(|&moment| moment > now)
            .min()
    }
}

/// The last moment at which it can begin and still be in time, wherever it goes.
fn latest(waiting: &Waiting) -> Option<Time> {
    let deadline = waiting.request.deadline?;
    let least = seconds(waiting.least_prefill).as_nanos() as u64;
    Some(Time::from_nanos(deadline.as_nanos().saturating_sub(least)))
}

/// Remembers what a request waits for.
fn note(now: Time, waiting: &mut Waiting, hold: Hold) {
    waiting.least_prefill = hold.least_prefill;
    waiting.tokens = hold.least_tokens;
    waiting.regime(now, false);
    waiting.patient_until = None;
    if let Some(patience) = hold.patience {
        waiting.held_since.get_or_insert(now);
        // A little later, so that the comparison that was made now comes out the other way then.
        waiting.patient_until = Some(now + seconds(patience + 1e-6));
    }
}
