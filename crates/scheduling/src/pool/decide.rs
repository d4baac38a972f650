//! One decision: who may take a request, what each would cost, and whether to go, to wait or to refuse.

use smallvec::SmallVec;

use super::Pool;
use super::endpoint::Tier;
use crate::cost::{Dispatched, Facts, Situation};
use crate::criticality::{Admission, Waiting, sheddable};
use crate::decision::RejectReason;
use crate::explain::{Candidate, Explanation};
use crate::id::EndpointId;
use crate::policy::{LeastRequest, NAMED, Policy, Ranking};
use crate::prefix::Hits;
use crate::request::{Candidates, Request, RequestKind};
use crate::time::Time;

/// Buffers of a decision, kept from one to the next.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    hits: Hits,
    facts: Vec<Facts>,
    ranking: Ranking,
    /// Per endpoint: what requests before this one in the queue will bring it.
    pub(super) shadow: Vec<Shadow>,
}

/// Work that waits for an endpoint.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Shadow {
    seconds: f64,
    tokens: f64,
}

/// What to do with a request.
#[derive(Debug)]
pub(super) enum Verdict {
    Go(Box<Choice>),
    /// Wait for an endpoint that is not open.
    Wait(Hold),
    /// There is no endpoint that could take it.
    Nobody,
    Reject(RejectReason),
}

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Choice {
    /// The winner and its fallbacks.
    pub(super) endpoints: SmallVec<[EndpointId; NAMED]>,
    pub(super) ttft: f64,
    pub(super) hit_blocks: u32,
    pub(super) cold: bool,
    /// Not to be compared with those that wait.
    pub(super) at_once: bool,
    pub(super) sizes: Dispatched,
    pub(super) explanation: Option<Box<Explanation>>,
}

/// What a request waits for.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Hold {
    /// It passes over an open endpoint, and if it hears nothing it does so for this many seconds more.
    pub(super) patience: Option<f64>,
    /// Seconds of its prefill where that is least.
    pub(super) least_prefill: f64,
    /// Tokens to compute where they are least.
    pub(super) least_tokens: u64,
    /// The endpoint it waits for, and the work it will bring.
    claim: Option<(usize, Shadow)>,
}

impl Scratch {
    pub(super) fn claim(&mut self, hold: &Hold) {
        if let Some((index, work)) = hold.claim {
            if self.shadow.len() <= index {
                self.shadow.resize(index + 1, Shadow::default());
            }
            self.shadow[index].seconds += work.seconds;
            self.shadow[index].tokens += work.tokens;
        }
    }
}

impl Pool {
    pub(super) fn tokens_per_block(&self) -> f64 {
        f64::from(self.config.block_tokens.max(1)) * self.learned.scale()
    }

    /// Judges one request as things are.
    pub(super) fn judge(&mut self, now: Time, waiting: &Waiting) -> Verdict {
        self.judged += 1;
        let mut scratch = std::mem::take(&mut self.scratch);
        let verdict = self.judge_with(now, waiting, &mut scratch);
        self.scratch = scratch;
        verdict
    }

    fn judge_with(&self, now: Time, waiting: &Waiting, scratch: &mut Scratch) -> Verdict {
        let request = &*waiting.request;
        let tier = match self.best_tier(now, request) {
            Ok(Some(tier)) => tier,
            Ok(None) if matches!(request.candidates, Candidates::Ordered(_)) => {
                return Verdict::Reject(RejectReason::NoCandidate);
            }
            Ok(None) => return Verdict::Nobody,
            Err(reason) => return Verdict::Reject(reason),
        };
        let Scratch {
            hits,
            facts,
            ranking,
            shadow,
        } = scratch;
        let inference = request.kind == RequestKind::Inference;
        let prefix = if inference { &*request.prefix } else { &[] };
        self.index.walk(prefix, self.slots.len(), hits);
        let situation = self.situation(now, waiting);
        let by_load = self.gather(
            now,
            request,
            tier,
            &situation,
            Gathered {
                hits,
                facts,
                shadow,
            },
        ) || !inference;
        let situation = Situation {
            candidates: facts,
            ..situation
        };
        let policy: &dyn Policy = if by_load {
            &LeastRequest
        } else {
            &*self.policy
        };
        policy.rank(&situation, ranking);
        let Some(&first) = ranking.order.first() else {
            return Verdict::Nobody;
        };
        if let Candidates::Ordered(ids) = &request.candidates {
            ranking.follow(ids, facts);
            let mut choice = self.choice(&situation, ranking, hits, by_load);
            choice.at_once = true;
            if request.explain {
                choice.explanation = Some(self.explain(&situation, ranking, policy, first));
            }
            return Verdict::Go(Box::new(choice));
        }

        if let Some(verdict) = self.turned_back(waiting, &situation, by_load, ranking) {
            return verdict;
        }
        let queues = self.config.flow.admission == Admission::Queue;
        let preferred = request
            .preferred
            .and_then(|id| facts.iter().position(|it| it.endpoint == id));
        if let Some(at) = preferred.filter(|_| tier == Tier::Ready) {
            ranking.put_first(at);
            ranking.reason = "session: it was there before";
        } else if queues && !by_load && !facts[ranking.order[0]].open {
            let held = waiting
                .held_since
                .map_or(0.0, |since| now.seconds_since(since))
                .min(facts[ranking.order[0]].silent_seconds);
            if let Some(hold) = hold(&situation, ranking, policy.waits(), held) {
                return Verdict::Wait(hold);
            }
        }
        let mut choice = self.choice(&situation, ranking, hits, by_load);
        choice.at_once = by_load || preferred.is_some_and(|at| at == ranking.order[0]);
        if request.explain {
            choice.explanation = Some(self.explain(&situation, ranking, policy, first));
        }
        Verdict::Go(Box::new(choice))
    }

    /// Whether its class or its deadline keep it from going, wherever that would be.
    fn turned_back(
        &self,
        waiting: &Waiting,
        situation: &Situation<'_>,
        by_load: bool,
        ranking: &mut Ranking,
    ) -> Option<Verdict> {
        let (now, request) = (situation.now, situation.request);
        let held_back = !by_load && self.held_back(now, request.priority);
        let open = situation.candidates.iter().any(|it| it.open);
        let any_open = by_load || (!held_back && open);
        if !any_open && sheddable(request.priority) && (held_back || self.sheds(now, request)) {
            return Some(Verdict::Reject(RejectReason::SheddableSaturated));
        }
        // What is before one that waits already is known to its endpoints as claims.
        let before = if any_open || self.queue.get(waiting.ticket).is_some() {
            0.0
        } else {
            self.before(now, request)
        };
        if let Some(verdict) = miss(situation, before, by_load, ranking) {
            return Some(verdict);
        }
        let waits = held_back && self.config.flow.admission == Admission::Queue;
        waits.then(|| Verdict::Wait(Hold::least(situation)))
    }

    /// The best tier that has a candidate.
    fn best_tier(&self, now: Time, request: &Request) -> Result<Option<Tier>, RejectReason> {
        let tier = |id: EndpointId| {
            let endpoint = self.endpoint_ref(id)?;
            if request.exclude.contains(&id) {
                None
            } else {
                endpoint.tier(now)
            }
        };
        match request.candidates.named() {
            None => Ok(self.ids().filter_map(tier).min()),
            Some(ids) if ids.iter().any(|&id| self.endpoint_ref(id).is_some()) => {
                Ok(ids.iter().copied().filter_map(tier).min())
            }
            Some(_) => Err(RejectReason::NoCandidate),
        }
    }

    /// Why an endpoint may not take a request.
    fn excluded(
        &self,
        now: Time,
        request: &Request,
        id: EndpointId,
        tier: Tier,
    ) -> Option<&'static str> {
        let endpoint = self.endpoint_ref(id)?;
        let named = request
            .candidates
            .named()
            .is_none_or(|ids| ids.contains(&id));
        match endpoint.tier(now) {
            _ if !named => Some("not_a_candidate"),
            _ if request.exclude.contains(&id) => Some("already_tried"),
            None => Some("dead"),
            Some(own) if own == tier => None,
            Some(Tier::Down) => Some("down"),
            Some(_) => Some("draining"),
        }
    }

    fn situation<'a>(&'a self, now: Time, waiting: &'a Waiting) -> Situation<'a> {
        let request = &*waiting.request;
        Situation {
            now,
            request,
            prompt_tokens: (f64::from(request.prompt_tokens) * self.learned.scale()).max(1.0),
            output_tokens: self.learned.output(request.max_output_tokens),
            theta: self.learned.theta(&self.config.prices),
            expected_reuse: self.learned.expected_reuse(),
            prices: self.config.prices,
            salt: self.seed ^ waiting.ticket.0.wrapping_mul(0xd6e8_feb8_6659_fd93),
            candidates: &[],
        }
    }

    /// Collects the facts of all candidates. Returns whether only their load is known.
    fn gather(
        &self,
        now: Time,
        request: &Request,
        tier: Tier,
        situation: &Situation<'_>,
        out: Gathered<'_>,
    ) -> bool {
        let tokens_per_block = self.tokens_per_block();
        let mean_prefill = self.learned.mean_prefill();
        let prompt = situation.prompt_tokens;
        out.facts.clear();
        let mut load_only = false;
        let pool_open = self.pool_open(now);
        let rank = self.rank(now, request.priority);
        for endpoint in self.slots.iter().filter_map(|slot| slot.endpoint.as_ref()) {
            if self.excluded(now, request, endpoint.id, tier).is_some() {
                continue;
            }
            let index = endpoint.id.index();
            let shared = (self.index.pinned_blocks(index) as f64 * tokens_per_block) as u64;
            let mut facts = endpoint.facts(now, &self.config, rank, shared, mean_prefill);
            let blocks = |count: u32| (f64::from(count) * tokens_per_block).min(prompt);
            facts.hit_tokens = blocks(out.hits.cached[index]) * endpoint.trust;
            facts.shared_tokens = blocks(out.hits.pinned[index]);
            facts.adapter = endpoint.adapters.state(request.adapter);
            facts.open = pool_open.unwrap_or(facts.open);
            let c = &facts.coefficients;
            let hold = situation.output_tokens * (c.c0 + c.w_base);
            facts.adapter_seconds =
                endpoint
                    .adapters
                    .wait(request.adapter, now, c.adapter_load, hold);
            if let Some(shadow) = out.shadow.get(index) {
                facts.pending_seconds += shadow.seconds;
                facts.pending_tokens += shadow.tokens;
            }
            load_only |= endpoint.profile.load_only;
            out.facts.push(facts);
        }
        load_only
    }

    fn choice(
        &self,
        situation: &Situation<'_>,
        ranking: &Ranking,
        hits: &Hits,
        by_load: bool,
    ) -> Choice {
        let candidates = situation.candidates;
        let winner = &candidates[ranking.order[0]];
        let terms = situation.terms(winner);
        let best_hit = candidates
            .iter()
            .map(|it| it.hit_tokens)
            .fold(0.0, f64::max);
        let tokens_per_block = self.tokens_per_block();
        let anywhere = hits.cached.iter().copied().max().unwrap_or(0);
        let floor = winner.coefficients.w_base - terms.prefill;
        Choice {
            endpoints: ranking
                .order
                .iter()
                .map(|&at| candidates[at].endpoint)
                .collect(),
            ttft: if by_load {
                0.0
            } else {
                terms.ttft() + floor.max(0.0)
            },
            hit_blocks: hits.cached[winner.endpoint.index()],
            cold: !by_load && best_hit < 0.1 * situation.prompt_tokens,
            sizes: Dispatched {
                prompt: situation.prompt_tokens,
                hit: winner.hit_tokens,
                best_hit: f64::from(anywhere) * tokens_per_block,
                known: f64::from(hits.known) * tokens_per_block,
                seconds: terms.prefill,
            },
            at_once: false,
            explanation: None,
        }
    }

    fn explain(
        &self,
        situation: &Situation<'_>,
        ranking: &Ranking,
        policy: &dyn Policy,
        first: usize,
    ) -> Box<Explanation> {
        let (now, request) = (situation.now, situation.request);
        let winner = &situation.candidates[ranking.order[0]];
        let tier = self
            .best_tier(now, request)
            .ok()
            .flatten()
            .unwrap_or(Tier::Ready);
        let candidates = self.ids().filter_map(|id| {
            let view = self.view(now, id)?;
            let at = situation.candidates.iter().position(|it| it.endpoint == id);
            let facts = at.map(|at| &situation.candidates[at]);
            Some(Candidate {
                endpoint: id,
                total: at
                    .map(|at| ranking.costs[at])
                    .filter(|cost| cost.is_finite())
                    .unwrap_or_default(),
                terms: facts
                    .map(|facts| policy.terms(situation, facts))
                    .unwrap_or_default(),
                open: view.open,
                excluded: self.excluded(now, request, id, tier).or_else(|| {
                    let cost = at.map(|at| ranking.costs[at]);
                    cost.is_some_and(f64::is_infinite).then_some("filtered")
                }),
                hit_tokens: facts.map_or(0, |facts| facts.hit_tokens as u32),
                in_flight: view.in_flight,
                waiting: view.waiting,
                kv_usage: view.kv_usage,
                age: view.scrape_age,
            })
        });
        let mut reason = format!(
            "{} ({:.4})",
            ranking.reason, ranking.costs[ranking.order[0]]
        );
        if ranking.order[0] != first {
            let cheapest = situation.candidates[first].endpoint.index;
            reason += &format!(
                "; ranked first was {cheapest} ({:.4})",
                ranking.costs[first]
            );
        } else if let Some(&second) = ranking.order.get(1) {
            let next = situation.candidates[second].endpoint.index;
            reason += &format!("; next is {next} ({:.4})", ranking.costs[second]);
        }
        Box::new(Explanation {
            policy: policy.name(),
            candidates: candidates.collect(),
            winner: winner.endpoint,
            reason,
        })
    }
}

/// Where the facts of a decision are collected.
struct Gathered<'a> {
    hits: &'a Hits,
    facts: &'a mut Vec<Facts>,
    shadow: &'a [Shadow],
}

/// An endpoint that we hear nothing of is late after this many times the prefill that it has before it.
const LATE: f64 = 2.0;

/// The winner is not open. Returns what to wait for, or `None` once the best open endpoint is in its place: at once for
/// a policy that has no cost in seconds, else when the winner has been silent for `held` seconds of the wait, and that
/// is what it is better by and more than its work explains.
fn hold(situation: &Situation<'_>, ranking: &mut Ranking, waits: bool, held: f64) -> Option<Hold> {
    let candidates = situation.candidates;
    let open = (0..candidates.len())
        .filter(|&at| candidates[at].open && ranking.costs[at].is_finite())
        .min_by(|&a, &b| {
            let key = |at: usize| {
                (
                    candidates[at].last_dispatch,
                    situation.chance(candidates[at].endpoint),
                )
            };
            ranking.costs[a]
                .total_cmp(&ranking.costs[b])
                .then_with(|| key(a).cmp(&key(b)))
        });
    let first = ranking.order[0];
    let patience = open.map(|at| {
        if waits {
            let worth = ranking.costs[at] - ranking.costs[first];
            worth + LATE * candidates[first].pending_seconds - held
        } else {
            0.0
        }
    });
    if let Some((at, patience)) = open.zip(patience)
        && patience <= 0.0
    {
        ranking.put_first(at);
        ranking.reason = "best of those that are open";
        return None;
    }
    let work = Shadow {
        seconds: situation.terms(&candidates[first]).prefill,
        tokens: situation.uncached(&candidates[first]),
    };
    Some(Hold {
        patience,
        claim: Some((candidates[first].endpoint.index(), work)),
        ..Hold::least(situation)
    })
}

impl Hold {
    /// The wait of one that may go nowhere.
    fn least(situation: &Situation<'_>) -> Self {
        let least = |of: &dyn Fn(&Facts) -> f64| {
            let all = situation.candidates.iter().map(of);
            all.fold(f64::INFINITY, f64::min)
        };
        Self {
            least_prefill: least(&|it| situation.terms(it).prefill),
            least_tokens: least(&|it| situation.uncached(it)) as u64,
            ..Self::default()
        }
    }
}

/// Whether the deadline passes before the first token on any endpoint, `before` seconds from now; if only the winner
/// would miss it, the fastest becomes the winner.
fn miss(it: &Situation<'_>, before: f64, by_load: bool, ranking: &mut Ranking) -> Option<Verdict> {
    let left = it.request.deadline?.seconds_since(it.now);
    let ttft = |at: usize| {
        if by_load {
            0.0
        } else {
            it.terms(&it.candidates[at]).ttft() + before
        }
    };
    let may = (0..it.candidates.len()).filter(|&at| ranking.costs[at].is_finite());
    let fastest = may.min_by(|&a, &b| ttft(a).total_cmp(&ttft(b)))?;
    if left <= 0.0 || ttft(fastest) > left {
        return Some(Verdict::Reject(RejectReason::DeadlineUnreachable));
    }
    if ttft(*ranking.order.first()?) > left {
        ranking.put_first(fastest);
        ranking.reason = "fastest: the others miss the deadline";
    }
    None
}
