//! Policies that count requests or nothing at all.
//!
//! Least request and power of two count the gateway's own requests in flight. Their stale twins read the engines'
//! metrics pages instead (waiting and running), which is how a gateway without bookkeeping does it; between two pages
//! everybody runs to the same engine (Mitzenmacher, "How useful is old information?").

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::rule::{Ask, Rule, Verdict, least, least_of_all};

/// Any engine.
pub(super) struct Random;

impl Rule for Random {
    fn choose(&mut self, ask: &Ask<'_>, rng: &mut ChaCha8Rng) -> Verdict {
        let up = ask.engines();
        Verdict::Send(up[rng.random_range(0..up.len())])
    }
}

/// One after the other.
#[derive(Default)]
pub(super) struct RoundRobin {
    next: usize,
}

impl Rule for RoundRobin {
    fn choose(&mut self, ask: &Ask<'_>, _rng: &mut ChaCha8Rng) -> Verdict {
        let up = ask.engines();
        let next = up.iter().find(|&&engine| engine >= self.next);
        let engine = next.or(up.first()).copied();
        self.next = engine.map_or(0, |engine| engine + 1);
        engine.map_or(Verdict::Refuse, Verdict::Send)
    }
}

/// What a policy that counts requests counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    /// The gateway's own requests in flight.
    Local,
    /// Waiting and running requests of the last metrics page.
    Scraped,
}

impl Count {
    fn of(self, ask: &Ask<'_>, engine: usize) -> f64 {
        let view = &ask.fleet.engines[engine];
        f64::from(match self {
            Self::Local => view.in_flight,
            Self::Scraped => view.scraped_load(),
        })
    }
}

/// The engine with the fewest requests: least request, or join the shortest queue.
pub(super) struct Fewest(pub(super) Count);

impl Rule for Fewest {
    fn choose(&mut self, ask: &Ask<'_>, rng: &mut ChaCha8Rng) -> Verdict {
        least_of_all(ask, |engine| self.0.of(ask, engine), rng)
    }
}

/// The better of two engines drawn at random.
pub(super) struct TwoChoices(pub(super) Count);

impl Rule for TwoChoices {
    fn choose(&mut self, ask: &Ask<'_>, rng: &mut ChaCha8Rng) -> Verdict {
        let up = ask.engines();
        let engines = up.len();
        let first = rng.random_range(0..engines);
        let second = match engines {
            1 => first,
            _ => (first + 1 + rng.random_range(0..engines - 1)) % engines,
        };
        let (first, second) = (up[first], up[second]);
        let pick = least([first, second], |engine| self.0.of(ask, engine), rng);
        Verdict::Send(pick.unwrap_or(first))
    }
}
