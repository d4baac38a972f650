//! What one request has to tell, in half a line, out of the decision and of what was measured.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::client::{Answered, Outcome};
use super::decision::Why;
use super::traffic::{Arrival, Class};
use super::view::{millis, tokens};

/// What a story is about; the narrator alternates between kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Prefix,
    Adapter,
    Queue,
    Space,
    Batch,
    Cold,
    Even,
    Waited,
    Shed,
    Again,
    Behind,
    Turn,
}

/// Good, bad or neither; decides the colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Plain,
    Bad,
}

/// One line of the narration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Story {
    pub(crate) kind: Kind,
    pub(crate) tone: Tone,
    /// Who asked.
    pub(crate) who: String,
    /// Where it went; `None` if nowhere.
    pub(crate) server: Option<String>,
    /// Time to the first token.
    pub(crate) ttft: Option<Duration>,
    /// The half line.
    pub(crate) text: String,
}

/// A first token later than this is worth a word about the queue.
const LATE: Duration = Duration::from_millis(250);

/// Remembers where prefixes have been computed, to tell work done twice.
#[derive(Debug, Default)]
pub(crate) struct Storyteller {
    homes: HashMap<(u32, String), HashSet<String>>,
}

impl Storyteller {
    /// What to say about a request that has ended; `explains`: the policy has reasons.
    pub(crate) fn tell(
        &mut self,
        arrival: &Arrival,
        outcome: &Outcome,
        explains: bool,
    ) -> Option<Story> {
        let base = |kind, tone, text| Story {
            kind,
            tone,
            who: arrival.who.clone(),
            server: None,
            ttft: None,
            text,
        };
        match outcome {
            Outcome::Failed(_) => None,
            Outcome::Shed { retry_after, .. } => Some(base(
                Kind::Shed,
                Tone::Bad,
                format!("all servers busy, batch can wait: 429, retry in {retry_after} s"),
            )),
            Outcome::Answered(answered) => {
                let elsewhere = self.computed_elsewhere(arrival, answered);
                let (kind, tone, text) = if explains {
                    with_reasons(arrival, answered)
                } else {
                    without_reasons(arrival, answered, elsewhere.as_deref())
                };
                let (server, ttft) = (Some(answered.server.clone()), Some(answered.ttft));
                Some(Story {
                    server,
                    ttft,
                    ..base(kind, tone, text)
                })
            }
        }
    }

    /// Another server that has computed the shared prefix before, if this one had to do it again.
    fn computed_elsewhere(&mut self, arrival: &Arrival, answered: &Answered) -> Option<String> {
        let prefix = arrival.prefix?;
        let served = answered
            .decision
            .model
            .clone()
            .unwrap_or_else(|| arrival.model.to_owned());
        let homes = self.homes.entry((prefix.id, served)).or_default();
        let missed =
            (answered.cached_tokens as f64) < prefix.share * answered.prompt_tokens as f64 / 2.0;
        let other = homes
            .iter()
            .filter(|home| **home != answered.server)
            .min()
            .cloned();
        homes.insert(answered.server.clone());
        other.filter(|_| missed)
    }
}

fn with_reasons(arrival: &Arrival, answered: &Answered) -> (Kind, Tone, String) {
    let decision = &answered.decision;
    if decision.queued_ms >= 1.0 {
        let waited = Duration::from_secs_f64(decision.queued_ms / 1e3);
        return (
            Kind::Waited,
            Tone::Plain,
            format!(
                "waited {} in the gateway: all servers were busy",
                millis(waited)
            ),
        );
    }
    let seconds = |seconds: f64| millis(Duration::from_secs_f64(seconds.max(0.0)));
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    match decision.why() {
        Why::Prefix { there, elsewhere } => {
            let (hit, all) = (
                tokens(answered.cached_tokens),
                tokens(answered.prompt_tokens),
            );
            let text = format!(
                "prefix hit {hit} of {all} tokens, {} instead of {}",
                seconds(there),
                seconds(elsewhere)
            );
            (Kind::Prefix, Tone::Good, text)
        }
        Why::Adapter => {
            let adapter = decision.model.as_deref().unwrap_or(arrival.model);
            (
                Kind::Adapter,
                Tone::Good,
                format!("adapter {adapter} is loaded there"),
            )
        }
        Why::Queue { there, elsewhere } => (
            Kind::Queue,
            Tone::Good,
            format!(
                "shortest queue: {} of work ahead, elsewhere {}",
                seconds(there),
                seconds(elsewhere)
            ),
        ),
        Why::Space { there, elsewhere } => (
            Kind::Space,
            Tone::Good,
            format!(
                "most room: KV cache {} in use, elsewhere {}",
                percent(there),
                percent(elsewhere)
            ),
        ),
        Why::Batch { there, elsewhere } => (
            Kind::Batch,
            Tone::Good,
            format!("least disturbed: {there} requests there, elsewhere {elsewhere}"),
        ),
        Why::Cold => (
            Kind::Cold,
            Tone::Plain,
            "new prompt: to the server longest without a new one".to_owned(),
        ),
        Why::Even => (Kind::Even, Tone::Plain, "all about equal".to_owned()),
    }
}

fn without_reasons(
    arrival: &Arrival,
    answered: &Answered,
    elsewhere: Option<&str>,
) -> (Kind, Tone, String) {
    if answered.ttft > LATE && arrival.class == Class::Critical {
        return (
            Kind::Behind,
            Tone::Bad,
            "its turn; critical, but behind whatever came before".to_owned(),
        );
    }
    if let Some(other) = elsewhere {
        let shared =
            arrival.prefix.map_or(0.0, |prefix| prefix.share) * answered.prompt_tokens as f64;
        let again = tokens((shared as u64).saturating_sub(answered.cached_tokens));
        return (
            Kind::Again,
            Tone::Bad,
            format!("its turn; {again} tokens computed again, {other} had them"),
        );
    }
    (Kind::Turn, Tone::Plain, "its turn".to_owned())
}

/// Chooses what to show: of the stories at hand, one of the kind that was shown least recently.
#[derive(Debug, Default)]
pub(crate) struct Editor {
    pending: Vec<Story>,
    shown: HashMap<Kind, u32>,
    count: u32,
}

impl Editor {
    pub(crate) fn offer(&mut self, story: Story) {
        self.pending.push(story);
    }

    /// The next story, if there is any; the others are dropped.
    pub(crate) fn choose(&mut self) -> Option<Story> {
        let age = |story: &Story| self.shown.get(&story.kind).copied().unwrap_or(0);
        // Of equals the newest.
        let best = (0..self.pending.len())
            .rev()
            .min_by_key(|&nth| age(&self.pending[nth]))?;
        let story = self.pending.swap_remove(best);
        self.pending.clear();
        self.count += 1;
        self.shown.insert(story.kind, self.count);
        Some(story)
    }
}

#[cfg(test)]
mod tests {
    use super::super::decision::Decision;
    use super::super::traffic::Prefix;
    use super::*;

    fn agent() -> Arrival {
        let body = bytes::Bytes::new();
        let prefix = Some(Prefix { id: 7, share: 0.9 });
        Arrival {
            at: Duration::ZERO,
            class: Class::Standard,
            who: "agents/tenant-07".into(),
            model: "agents",
            prefix,
            in_burst: false,
            body,
        }
    }

    fn answered(server: &str, cached_tokens: u64) -> Outcome {
        let answer = Answered {
            server: server.into(),
            prompt_tokens: 3000,
            cached_tokens,
            ..Answered::default()
        };
        Outcome::Answered(Box::new(answer))
    }

    #[test]
    fn work_is_done_again_only_where_another_server_has_done_it() {
        let mut teller = Storyteller::default();
        let mut kind = |server, cached| {
            teller
                .tell(&agent(), &answered(server, cached), false)
                .map(|story| story.kind)
        };
        assert_eq!(kind("a", 0), Some(Kind::Turn), "somebody must be first");
        assert_eq!(kind("a", 2700), Some(Kind::Turn));
        assert_eq!(kind("b", 16), Some(Kind::Again));
        assert_eq!(kind("b", 2700), Some(Kind::Turn));
        let story = teller.tell(&agent(), &answered("c", 100), false);
        assert!(story.is_some_and(|story| {
            story
                .text
                .contains("2.6k tokens computed again, a had them")
        }));
    }

    #[test]
    fn a_request_that_waited_says_so() {
        let decision = Decision {
            queued_ms: 12.0,
            ..Decision::default()
        };
        let answer = Answered {
            decision,
            ..Answered::default()
        };
        let story = Storyteller::default()
            .tell(&agent(), &Outcome::Answered(Box::new(answer)), true)
            .unwrap();
        assert_eq!(
            (story.kind, story.text.contains("12 ms")),
            (Kind::Waited, true)
        );
        assert_eq!(
            Storyteller::default().tell(&agent(), &Outcome::Failed("x".into()), true),
            None
        );
    }

    #[test]
    fn kinds_alternate() {
        let mut teller = Storyteller::default();
        let shed = Outcome::Shed {
            code: "sheddable_saturated".into(),
            retry_after: 1,
        };
        let mut editor = Editor::default();
        let mut seen = Vec::new();
        for _ in 0..4 {
            for _ in 0..9 {
                editor.offer(teller.tell(&agent(), &shed, true).unwrap());
            }
            editor.offer(teller.tell(&agent(), &answered("a", 2000), true).unwrap());
            seen.push(editor.choose().unwrap().kind);
        }
        assert_eq!(seen, [Kind::Even, Kind::Shed, Kind::Even, Kind::Shed]);
        assert_eq!(editor.choose(), None);
    }
}
