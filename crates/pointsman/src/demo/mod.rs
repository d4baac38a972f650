//! `pointsman demo`: simulated servers, the real gateway and mixed traffic, narrated.
//!
//! The same requests are sent twice, at the same moments, to fresh servers: once with round robin, once with the
//! default policy. Servers, gateway and client are one process but talk HTTP over loopback, and everything that is
//! told comes from what the client sees, from the gateway's own explanations and from the servers' counters. The exit
//! status is 0 only if every request is accounted for.

mod client;
mod decision;
mod report;
mod story;
mod traffic;
mod view;
mod world;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use scheduling::PolicyKind;
use tokio::sync::mpsc;

use client::{Client, Outcome};
use report::{Row, Summary, Verdict};
use story::{Editor, Storyteller};
use traffic::Arrival;
use view::{Ink, View};
use world::World;

/// Time between two lines of the narration.
const LINE_EVERY: Duration = Duration::from_millis(280);
/// Time between two drawings of the bars.
const DRAW_EVERY: Duration = Duration::from_millis(70);
/// What may pass after the last request until all have ended.
const GRACE: Duration = Duration::from_secs(20);

/// Flags of `demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Seconds of traffic for each of the two policies.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=120))]
    seconds: u32,
    /// Only lines: no colours, no cursor movement. By itself where standard output is no terminal.
    #[arg(long)]
    plain: bool,
    /// Seed of the traffic.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Runs the demo.
///
/// # Errors
/// When anything fails or a request is not accounted for.
pub(crate) fn run(args: DemoArgs) -> anyhow::Result<()> {
    let plain = args.plain
        || !std::io::stdout().is_terminal()
        || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let mut view = View::new(plain, Box::new(std::io::stdout()));
    show(&mut view, args.seconds, args.seed)
}

fn show(view: &mut View, seconds: u32, seed: u64) -> anyhow::Result<()> {
    let arrivals = traffic::arrivals(seed, f64::from(seconds));
    introduce(view, seconds, arrivals.len())?;
    let title = "Round robin: each server in turn, whatever it is doing; nobody is refused";
    let before = perform(view, PolicyKind::RoundRobin, title, seed, &arrivals)?;
    let title =
        "Pointsman: where it costs least, in seconds; critical first, batch when there is room";
    let after = perform(view, PolicyKind::ExpectedCost, title, seed, &arrivals)?;
    conclude(view, &before, &after)
}

fn introduce(view: &mut View, seconds: u32, requests: usize) -> anyhow::Result<()> {
    let kv = view::tokens(u64::from(world::KV_BLOCKS) * 16);
    let (servers, slots, adapters) = (world::SERVERS, world::LORA_SLOTS, world::ADAPTERS.len());
    let (tenants, burst) = (traffic::TENANTS, traffic::burst_size(f64::from(seconds)));
    let kinds = [
        (
            "chat",
            "Critical",
            traffic::CHAT_RATE,
            "people; LoRA adapters chat-v1 and chat-v2, 80:20".to_owned(),
        ),
        (
            "agents",
            "Standard",
            traffic::AGENT_RATE,
            format!("{tenants} tenants, each with a system prompt of about 2.8k tokens"),
        ),
        (
            "tools",
            "Standard",
            traffic::TOOL_RATE,
            "LoRA adapters sql and legal".to_owned(),
        ),
        (
            "batch",
            "Sheddable",
            traffic::BATCH_RATE,
            format!("long prompts, each used once; {burst} more in a burst near the end"),
        ),
    ];
    let title = view.ink(
        Ink::Bold,
        "Pointsman sets the points for requests to language models.",
    );
    view.line(&title)?;
    view.line("")?;
    view.line(&format!("{servers} simulated servers (Llama-3.1-8B on an H100, room for {kv} tokens of KV cache, {slots} of {adapters} LoRA"))?;
    view.line("adapters at once), the real gateway before them, and these clients, all over HTTP on this machine:")?;
    view.line("")?;
    for (name, class, rate, what) in kinds {
        let (name, class) = (
            view.ink(Ink::Name, &format!("{name:<7}")),
            format!("{class:<9}"),
        );
        view.line(&format!("  {name} {class} {rate:>3.0}/s  {what}"))?;
    }
    view.line("")?;
    view.line(&format!("The same {requests} requests at the same moments, {seconds} s each: first round robin, then Pointsman."))?;
    view.line(
        "A few of them as they end: who asked, where it went, the time to its first token, and why.",
    )?;
    Ok(())
}

/// One run: a fresh world, all the requests, the narration.
fn perform(
    view: &mut View,
    policy: PolicyKind,
    title: &str,
    seed: u64,
    arrivals: &[Arrival],
) -> anyhow::Result<Summary> {
    let name = policy.name();
    let world = World::start(policy, seed)?;
    view.line("")?;
    let title = view.ink(Ink::Bold, title);
    view.line(&title)?;
    let runtime = crate::runtime()?;
    let outcomes = runtime
        .block_on(play(view, &world, policy, arrivals))
        .with_context(|| format!("the {name} run"))?;
    let totals = world.totals();
    world.stop();
    Summary::new(&outcomes, totals).with_context(|| format!("the {name} run"))
}

/// Sends every request at its moment and waits for all of them to end.
async fn play(
    view: &mut View,
    world: &World,
    policy: PolicyKind,
    arrivals: &[Arrival],
) -> anyhow::Result<Vec<(Arrival, Outcome)>> {
    let (ended, mut endings) = mpsc::unbounded_channel();
    let start = Instant::now() + Duration::from_millis(50);
    let sender = tokio::spawn(send(
        Client::new(world.address()),
        start,
        arrivals.to_vec(),
        ended,
    ));
    let last = arrivals.last().map_or(Duration::ZERO, |arrival| arrival.at);
    let deadline = tokio::time::Instant::from_std(start + last + GRACE);
    let mut narrator = Narrator::new(policy, last);
    let mut draw = tokio::time::interval(DRAW_EVERY);
    let mut outcomes = Vec::with_capacity(arrivals.len());
    loop {
        tokio::select! {
            ending = endings.recv() => match ending {
                Some((arrival, outcome)) => {
                    narrator.hear(&arrival, &outcome);
                    outcomes.push((arrival, outcome));
                }
                None => break,
            },
            now = draw.tick() => narrator.draw(view, world, now.into_std().saturating_duration_since(start))?,
            () = tokio::time::sleep_until(deadline) => break,
        }
    }
    view.clear()?;
    sender.abort();
    ensure!(
        outcomes.len() == arrivals.len(),
        "{} of {} requests have not ended",
        arrivals.len() - outcomes.len(),
        arrivals.len()
    );
    outcomes.sort_by_key(|(arrival, _)| arrival.at);
    Ok(outcomes)
}

async fn send(
    client: Client,
    start: Instant,
    arrivals: Vec<Arrival>,
    ended: mpsc::UnboundedSender<(Arrival, Outcome)>,
) {
    for arrival in arrivals {
        let due = start + arrival.at;
        tokio::time::sleep_until(due.into()).await;
        let (client, ended) = (client.clone(), ended.clone());
        tokio::spawn(async move {
            let outcome = client.ask(due, arrival.body.clone()).await;
            let _ = ended.send((arrival, outcome));
        });
    }
}

/// Tells what happens while it happens.
struct Narrator {
    explains: bool,
    teller: Storyteller,
    editor: Editor,
    next_line: Duration,
    /// When the bars are written where they cannot be drawn.
    snapshots: Vec<Duration>,
}

impl Narrator {
    fn new(policy: PolicyKind, last: Duration) -> Self {
        Self {
            explains: policy == PolicyKind::ExpectedCost,
            teller: Storyteller::default(),
            editor: Editor::default(),
            next_line: LINE_EVERY,
            snapshots: vec![last.mul_f64(0.9), last.mul_f64(0.6)],
        }
    }

    fn hear(&mut self, arrival: &Arrival, outcome: &Outcome) {
        if let Some(story) = self.teller.tell(arrival, outcome, self.explains) {
            self.editor.offer(story);
        }
    }

    fn draw(&mut self, view: &mut View, world: &World, now: Duration) -> anyhow::Result<()> {
        if now >= self.next_line {
            self.next_line = now + LINE_EVERY;
            if let Some(story) = self.editor.choose() {
                let line = view.story(&story, now);
                view.line(&line)?;
            }
        }
        if !view.is_plain() {
            view.show(&world.glance())?;
        } else if self.snapshots.pop_if(|at| now >= *at).is_some() {
            for server in world.glance() {
                let bar = view.bar(&server);
                view.line(&bar)?;
            }
        }
        Ok(())
    }
}

fn conclude(view: &mut View, before: &Summary, after: &Summary) -> anyhow::Result<()> {
    view.line("")?;
    let head = view.ink(
        Ink::Bold,
        &format!("  {:<36}{:>14}{:>14}", "", "round robin", "Pointsman"),
    );
    view.line(&head)?;
    let rule = view.ink(Ink::Dim, &format!("  {}", "─".repeat(view::WIDTH - 18)));
    view.line(&rule)?;
    for row in report::rows(before, after) {
        let line = table_line(view, &row);
        view.line(&line)?;
    }
    view.line("")?;
    for line in wrap(&report::conclusion(before, after), view::WIDTH - 2) {
        let line = view.ink(Ink::Bold, &line);
        view.line(&line)?;
    }
    view.line("")?;
    view.line(
        "Now with your own servers (or simulated ones: pointsman sim --port 8000 --model llama):",
    )?;
    let command = view.ink(
        Ink::Name,
        "  pointsman serve http://gpu1:8000 http://gpu2:8000",
    );
    view.line(&command)?;
    Ok(())
}

fn table_line(view: &View, row: &Row) -> String {
    let note = match row.verdict {
        Verdict::Better => view.ink(Ink::Good, &row.note),
        Verdict::Worse => view.ink(Ink::Bad, &row.note),
        Verdict::Same | Verdict::Fact => view.ink(Ink::Dim, &row.note),
    };
    format!(
        "  {:<36}{:>14}{:>14}   {note}",
        row.name, row.before, row.after
    )
    .trim_end()
    .to_owned()
}

/// Breaks a text into lines at spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_short_show_accounts_for_every_request() {
        let out = Shared::default();
        show(&mut View::new(true, Box::new(out.clone())), 1, 3).unwrap();
        let text = String::from_utf8(out.0.lock().clone()).unwrap();
        let fits = |line: &str| line.chars().count() <= view::WIDTH;
        assert!(text.lines().all(fits), "{text}");
        for expected in ["server-3", "adapter loads", "pointsman serve"] {
            assert!(text.contains(expected), "no {expected:?} in {text}");
        }
    }

    #[test]
    fn text_is_wrapped_at_spaces() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable word", 4), ["unbreakable", "word"]);
        assert!(wrap(" ", 4).is_empty());
    }

    #[test]
    fn the_flags_have_defaults_that_keep_it_short() {
        use clap::Parser;
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            demo: DemoArgs,
        }
        let cli = Cli::try_parse_from(["demo"]).unwrap();
        assert!(!cli.demo.plain && cli.demo.seconds <= 5);
        assert!(Cli::try_parse_from(["demo", "--seconds", "0"]).is_err());
    }
}
