//! Bad weather: what a fleet goes through that no policy asked for.
//!
//! | Switch | What happens | What gateways see |
//! |---|---|---|
//! | `jitter=S` | each crossing of the network takes the delay times a lognormal factor of sigma S and mean 1; what belongs to one answer stays in order | late answers |
//! | `vanish@A-B` | no metrics page from second A to B | nothing |
//! | `freeze@A-B` | pages show the engine as it was at A | fresh pages with old values |
//! | `late=S@A-B` | pages are S seconds older when they are seen | old values |
//! | `jump=F@A-B` | waiting and running of every second page are F times too large | values that jump |
//! | `lie=F@A-B` | waiting and running are F times too large, KV use is F times too large and at most 1 | wrong values |
//! | `loss=E@A` | engine E is gone: its answers break, its cache is lost | broken connections; discovery tells `discovery` seconds later |
//! | `join=E@A` | engine E comes, with an empty cache; absent from the start if it was not lost before | discovery tells |
//! | `slow=ExF@A` | steps of engine E take F times as long from A on | nothing but late answers |
//! | `unstreamed=P` | of a share P of the answers, gateways hear the end only | no first token, no progress |
//! | `lost=P` | a share P of the requests is taken and never answered | silence until `first-byte` seconds are over |
//! | `zero@A-B` | all engines are gone from A to B | a pool without endpoints |
//!
//! A range without an end (`@A-`) lasts; several switches are joined by commas. A request whose engine is gone, or whose
//! connection breaks before the first token, is tried on up to two more engines, as the gateway does; one whose answer
//! had begun has failed.

use crate::LabError;

/// Engines on which a request is tried after the first.
pub(super) const RETRIES: u32 = 2;

/// All that can go wrong in a run. The default is calm.
#[derive(Debug, Clone, PartialEq)]
pub struct Weather {
    /// Sigma of the lognormal factor on each crossing of the network.
    pub network_jitter: f64,
    /// What is wrong with metrics pages.
    pub pages: Vec<PageWeather>,
    /// What happens to engines.
    pub changes: Vec<EngineChange>,
    /// Seconds until gateways are told that an engine is gone or has come.
    pub discovery: f64,
    /// Share of the answers of which gateways hear only the end.
    pub unstreamed: f64,
    /// Share of the requests that an engine takes and never answers.
    pub lost: f64,
    /// Seconds after which a gateway gives up a request without a first token; counts only for those never answered.
    pub first_byte: f64,
}

/// Something wrong with metrics pages for a time.
#[derive(Debug, Clone, PartialEq)]
pub struct PageWeather {
    /// From this second.
    pub from: f64,
    /// Until this.
    pub until: f64,
    /// Of these engines; `None`: of all.
    pub engines: Option<Vec<usize>>,
    /// What.
    pub fault: PageFault,
}

/// What can be wrong with a metrics page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PageFault {
    /// It does not come.
    Vanish,
    /// It shows what the last one before showed.
    Freeze,
    /// It is so many seconds older when it is seen.
    Late(f64),
    /// Every second one shows so many times the requests.
    Jump(f64),
    /// It shows so many times the requests and KV use.
    Lie(f64),
}

/// Something that happens to an engine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EngineChange {
    /// When, seconds.
    pub at: f64,
    /// To which; `None`: to all.
    pub engine: Option<usize>,
    /// What.
    pub kind: ChangeKind,
}

/// What can happen to an engine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ChangeKind {
    /// It is gone, with all that it was doing.
    Loss,
    /// It comes, empty.
    Join,
    /// Its steps take so many times as long from now on.
    Slow(f64),
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            network_jitter: 0.0,
            pages: Vec::new(),
            changes: Vec::new(),
            discovery: 1.0,
            unstreamed: 0.0,
            lost: 0.0,
            first_byte: 600.0,
        }
    }
}

impl Weather {
    /// Weathers by name: name, switches, what it is.
    pub const PRESETS: [(&'static str, &'static str, &'static str); 9] = [
        ("calm", "", "nothing goes wrong"),
        (
            "jittery",
            "jitter=1",
            "network delays vary with a lognormal factor of sigma 1",
        ),
        (
            "blind",
            "vanish@150-",
            "no metrics page any more from 150 s on",
        ),
        (
            "frozen",
            "freeze@150-",
            "metrics pages show the state of 150 s for ever",
        ),
        (
            "stale",
            "late=5@0-",
            "metrics pages are 5 s old when they are seen",
        ),
        (
            "jumping",
            "jump=10@150-",
            "every second metrics page shows ten times the requests",
        ),
        (
            "lying",
            "lie=10@150-",
            "metrics pages show ten times the requests and KV use",
        ),
        (
            "outage",
            "loss=0@200,join=0@300",
            "an engine is lost at 200 s and comes back empty at 300 s",
        ),
        (
            "limping",
            "slow=0x3@200",
            "an engine becomes three times as slow at 200 s",
        ),
    ];

    /// Whether nothing goes wrong.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        *self
            == Self {
                discovery: self.discovery,
                first_byte: self.first_byte,
                ..Self::default()
            }
    }

    /// Reads a preset's name, or switches joined by commas, as the table above has them.
    ///
    /// # Errors
    /// The first switch that makes no sense.
    pub fn parse(text: &str) -> Result<Self, LabError> {
        let preset = Self::PRESETS.iter().find(|(name, ..)| *name == text.trim());
        let text = preset.map_or(text, |(_, switches, _)| switches);
        let mut weather = Self::default();
        for switch in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
            weather.switch(switch).ok_or_else(|| LabError::Weather {
                switch: switch.to_owned(),
                known: Self::PRESETS.map(|(name, ..)| name).join(", "),
            })?;
        }
        Ok(weather)
    }

    fn switch(&mut self, text: &str) -> Option<()> {
        let (what, when) = match text.split_once('@') {
            Some((what, when)) => (what, Some(when)),
            None => (text, None),
        };
        let (key, value) = match what.split_once('=') {
            Some((key, value)) => (key.trim(), Some(value)),
            None => (what.trim(), None),
        };
        match (key, when) {
            ("jitter", None) => self.network_jitter = within(value?, 0.0, 5.0)?,
            ("discovery", None) => self.discovery = within(value?, 0.0, 1e6)?,
            ("first-byte", None) => self.first_byte = within(value?, 1e-3, 1e6)?,
            ("unstreamed", None) => self.unstreamed = within(value?, 0.0, 1.0)?,
            ("lost", None) => self.lost = within(value?, 0.0, 1.0)?,
            ("loss" | "join" | "slow", Some(when)) => self.change(key, value?, when)?,
            ("zero", Some(when)) => {
                let [from, until] = range(when)?;
                self.changes.push(all(from, ChangeKind::Loss));
                if until.is_finite() {
                    self.changes.push(all(until, ChangeKind::Join));
                }
            }
            (_, Some(when)) => {
                let [from, until] = range(when)?;
                let factor = |value: Option<&str>| within(value?, 0.0, 1e6);
                let fault = match (key, value) {
                    ("vanish", None) => PageFault::Vanish,
                    ("freeze", None) => PageFault::Freeze,
                    ("late", _) => PageFault::Late(factor(value)?),
                    ("jump", _) => PageFault::Jump(factor(value)?),
                    ("lie", _) => PageFault::Lie(factor(value)?),
                    _ => return None,
                };
                self.pages.push(PageWeather {
                    from,
                    until,
                    engines: None,
                    fault,
                });
            }
            _ => return None,
        }
        Some(())
    }

    fn change(&mut self, key: &str, value: &str, when: &str) -> Option<()> {
        let at = within(when, 0.0, 1e9)?;
        let (engine, kind) = match key {
            "slow" => {
                let (engine, factor) = value.split_once('x')?;
                (engine, ChangeKind::Slow(within(factor, 1e-3, 1e3)?))
            }
            "loss" => (value, ChangeKind::Loss),
            _ => (value, ChangeKind::Join),
        };
        let engine = Some(engine.trim().parse().ok()?);
        self.changes.push(EngineChange { at, engine, kind });
        Some(())
    }

    /// Engines that are not there at the start: those whose first loss or join is a join.
    pub(super) fn absent(&self, engine: usize) -> bool {
        let own = self.changes.iter().filter(|it| {
            it.engine.is_none_or(|this| this == engine)
                && !matches!(it.kind, ChangeKind::Slow(_))
                && it.at.is_finite()
        });
        own.min_by(|a, b| a.at.total_cmp(&b.at))
            .is_some_and(|first| first.kind == ChangeKind::Join)
    }

    /// What is wrong with the page of an engine at this time.
    pub(super) fn faults(&self, now: f64, engine: usize) -> impl Iterator<Item = PageFault> + '_ {
        let own = move |it: &&PageWeather| {
            now >= it.from
                && now < it.until
                && it.engines.as_ref().is_none_or(|of| of.contains(&engine))
        };
        self.pages.iter().filter(own).map(|it| it.fault)
    }
}

fn all(at: f64, kind: ChangeKind) -> EngineChange {
    EngineChange {
        at,
        engine: None,
        kind,
    }
}

fn within(text: &str, low: f64, high: f64) -> Option<f64> {
    let value: f64 = text.trim().parse().ok()?;
    (low..=high).contains(&value).then_some(value)
}

/// `A-B`, or `A-` for ever.
fn range(text: &str) -> Option<[f64; 2]> {
    let (from, until) = text.split_once('-')?;
    let from = within(from, 0.0, 1e9)?;
    let until = match until.trim() {
        "" => f64::INFINITY,
        until => within(until, 0.0, 1e9)?,
    };
    (from < until).then_some([from, until])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_and_presets_are_read() {
        for (name, text, _) in Weather::PRESETS {
            assert_eq!(Weather::parse(name).unwrap(), Weather::parse(text).unwrap());
            assert_eq!(Weather::parse(name).unwrap().is_calm(), name == "calm");
        }
        let weather = Weather::parse(
            "jitter=.5, loss=3@200,join=3@300,slow=2x3@100,freeze@100-200,late=1@0-,zero@5-6,lost=.01,first-byte=9",
        )
        .unwrap();
        assert_eq!((weather.network_jitter, weather.lost), (0.5, 0.01));
        assert_eq!((weather.changes.len(), weather.pages.len()), (5, 2));
        assert_eq!(weather.changes[2].kind, ChangeKind::Slow(3.0));
        assert_eq!(weather.faults(150.0, 0).count(), 2);
        assert_eq!(weather.faults(200.0, 0).count(), 1);
        assert!(!weather.absent(3));
        assert!(Weather::parse("join=4@9").unwrap().absent(4));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "jitter",
            "jitter=x",
            "jitter=-1",
            "jitter=NaN",
            "lost=1.5",
            "loss=3",
            "loss=x@3",
            "loss=-1@3",
            "join=1@-3",
            "slow=1@3",
            "slow=1x0@3",
            "vanish",
            "vanish@9-3",
            "vanish=2@1-3",
            "lie@1-3",
            "rain@1-3",
            "zero@7",
            "sunny",
        ] {
            assert!(Weather::parse(bad).is_err(), "{bad}");
        }
    }
}
