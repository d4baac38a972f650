//! The same calls again, and whether the same decisions come out.

use std::io::BufRead;

use recording::{Line, Opened, Reader, What};
use scheduling::{Decision, Pool, Time};

use crate::LabError;

/// What came of running a recording again.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Replay {
    /// Its pools, as they opened.
    pub pools: Vec<PoolReplay>,
    /// Lines read.
    pub lines: u64,
    /// The file ends in the middle of a line.
    pub cut: bool,
    /// The recorder ran into its bound.
    pub full: bool,
}

impl Replay {
    /// Whether every decision was the same.
    #[must_use]
    pub fn same(&self) -> bool {
        self.pools.iter().all(|pool| pool.difference.is_none())
    }
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PoolReplay {
    /// Whose recording it is.
    pub name: String,
    /// Its policy.
    pub policy: String,
    /// Requests that arrived.
    pub requests: u64,
    /// Decisions that were the same.
    pub same: u64,
    /// The first that was not; nothing is compared after it.
    pub difference: Option<Difference>,
    /// Why it was not run: its policy is not one of the core's own.
    pub skipped: Option<String>,
}

/// A decision that is not the recorded one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Line of the file, from 1.
    pub line: u64,
    /// What the file says.
    pub recorded: String,
    /// What the core says now.
    pub now: String,
}

/// Runs a recording again.
///
/// # Errors
/// A line that does not read, by its number.
pub fn verify(input: impl BufRead) -> Result<Replay, LabError> {
    let mut reader = Reader::new(input);
    let mut replay = Replay::default();
    let mut machines: Vec<Machine> = Vec::new();
    while let Some(line) = reader.next_line()? {
        if let What::Pool(opened) = &line.what {
            machines.push(Machine::new(opened));
            continue;
        }
        if matches!(line.what, What::Full) {
            replay.full = true;
            break;
        }
        // The reader lets no pool live that was not opened.
        if let Some(machine) = machines.get_mut(line.pool as usize) {
            machine.take(&line, reader.line());
        }
    }
    replay.lines = reader.line();
    replay.cut = reader.cut();
    replay.pools = machines.into_iter().map(|it| it.report).collect();
    Ok(replay)
}

/// A core that is driven again.
struct Machine {
    /// `None`: it cannot be driven, or has differed.
    pool: Option<Pool>,
    /// When it was asked last, while it may have more to say.
    asking: Option<Time>,
    report: PoolReplay,
}

impl Machine {
    fn new(opened: &Opened) -> Self {
        let own = opened.policy.is_none();
        let policy = match &opened.policy {
            Some(name) => name.clone(),
            None => opened.config.policy.name().to_owned(),
        };
        Self {
            pool: own.then(|| Pool::new(opened.config.clone(), opened.seed)),
            asking: None,
            report: PoolReplay {
                name: opened.name.clone(),
                skipped: (!own).then(|| format!("its policy {policy} was given from outside")),
                policy,
                ..PoolReplay::default()
            },
        }
    }

    fn take(&mut self, line: &Line, number: u64) {
        if matches!(line.what, What::Arrive { .. }) {
            self.report.requests += 1;
        }
        let Some(pool) = &mut self.pool else {
            return;
        };
        if line.what.is_said() {
            self.asking = Some(line.at);
            let now = pool.next(line.at);
            self.compare(Some(&line.what), now.as_ref(), number);
            return;
        }
        if let (Some(at), false) = (self.asking.take(), line.amid) {
            // It had said its last word.
            let now = pool.next(at);
            if now.is_some() {
                self.compare(None, now.as_ref(), number);
                return;
            }
        }
        if let Some(wrong) = tell(pool, line) {
            self.differ(number, wrong.0, wrong.1);
            return;
        }
        self.asking = (!line.more).then_some(line.at);
    }

    fn compare(&mut self, recorded: Option<&What>, now: Option<&Decision>, number: u64) {
        let recorded = recorded.map_or_else(|| "nothing".to_owned(), gist);
        let now = now.map_or_else(|| "nothing".to_owned(), |it| gist(&What::said(it)));
        if recorded == now {
            self.report.same += 1;
        } else {
            self.differ(number, recorded, now);
        }
    }

    fn differ(&mut self, line: u64, recorded: String, now: String) {
        self.pool = None;
        self.report.difference = Some(Difference {
            line,
            recorded,
            now,
        });
    }
}

/// Makes the call that a line stands for. A name that the core gives and that is not the recorded one is a difference:
/// (recorded, now).
fn tell(pool: &mut Pool, line: &Line) -> Option<(String, String)> {
    let names = match &line.what {
        What::Join { endpoint, profile } => {
            let now = pool.join(line.at, *profile);
            (format!("{endpoint:?}"), format!("{now:?}"))
        }
        What::Arrive { ticket, request } => {
            let now = pool.arrive(line.at, (**request).clone());
            (format!("{ticket:?}"), format!("{now:?}"))
        }
        What::Share(on) => {
            pool.share(*on);
            return None;
        }
        other => {
            other.with_event(|event| pool.observe(line.at, event));
            return None;
        }
    };
    (names.0 != names.1).then_some(names)
}

/// A decision in words.
fn gist(said: &What) -> String {
    match said {
        What::Dispatch {
            ticket,
            endpoints,
            queued,
            hit_tokens,
            ..
        } => {
            let places = endpoints.iter().map(|it| it.index().to_string());
            format!(
                "request {} to server {} after {queued} ns, {hit_tokens} tokens cached",
                ticket.get(),
                places.collect::<Vec<_>>().join(", then ")
            )
        }
        What::Reject { ticket, reason } => {
            format!("request {} refused: {}", ticket.get(), reason.code())
        }
        What::Evict { ticket, reason } => {
            format!("request {} ended: {}", ticket.get(), reason.code())
        }
        other => format!("{other:?}"),
    }
}
