//! The page.

use std::fmt::Write as _;

use super::groups::{Group, Row, groups};
use super::svg::{Chart, Look, Point, Series, escape, short, stroke};
use super::{curves, dots};
use crate::compare::{Moment, Results, WorkloadNote};
use crate::goals::Outcome;
use crate::stats::{Interval, PairedRatio};

const STYLE: &str = "
:root{--ink:#1c2430;--dim:#5c6674;--line:#dfe3e8;--paper:#fff;--mark:#eef4fb}
@media (prefers-color-scheme:dark){:root{--ink:#e4e8ee;--dim:#9aa5b4;--line:#333c48;--paper:#14181d;--mark:#1d2935}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1240px;margin:0 auto;padding:24px}
h1{font-size:24px;margin:0 0 4px}h2{margin:36px 0 8px;border-top:1px solid var(--line);padding-top:20px}h3{margin:22px 0 6px}
p,li{color:var(--dim)}.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(380px,1fr));gap:14px}
svg{width:100%;height:auto}svg text{fill:var(--ink);font:11px system-ui,sans-serif}svg .title{font-weight:600;font-size:12.5px}
svg .tick{fill:var(--dim)}svg .grid{stroke:var(--line)}svg .limit{stroke:#c33;stroke-width:1;stroke-dasharray:6 4;fill:none}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13px;margin:8px 0}.legend svg{width:30px;height:10px;margin-right:6px}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums;white-space:nowrap}
th,td{padding:3px 9px;text-align:right;border-bottom:1px solid var(--line)}th:first-child,td:first-child{text-align:left}
th{color:var(--dim);font-weight:600}td small{color:var(--dim)}tr.bound td{color:var(--dim);font-style:italic}tr.best td{background:var(--mark)}
table.goals{white-space:normal}table.goals td{text-align:left;vertical-align:top}table.goals th{text-align:left}table.goals td:nth-child(3),table.goals td:nth-child(4),table.goals td:nth-child(5){white-space:nowrap}
tr.met b{color:#0a7d4f}tr.missed b{color:#c2410c}tr.none b{color:var(--dim)}
";

/// Titles of the charts that have an objective; a triangle marks the load at which a line crosses it.
const TTFT: &str = "time to first token, p90 (s)";
const TPOT: &str = "time per output token, p90 (s)";

/// The whole page.
#[must_use]
pub fn page(results: &Results) -> String {
    whole(results, None)
}

/// The page with the goals before everything else.
#[must_use]
pub fn goals_page(outcome: &Outcome) -> String {
    whole(&outcome.results, Some(outcome))
}

/// The figure of all cells as a file of its own.
#[must_use]
pub fn overview(results: &Results) -> String {
    let groups = groups(results);
    let policies = Palette::new(&groups);
    dots::figure(&groups, OURS, |name| policies.drawn(name), true)
}

/// The p90 of the time to the first token over the load, of each workload with several loads, as a file of its own.
#[must_use]
pub fn over_load_figure(results: &Results) -> String {
    let groups = groups(results);
    let policies = Palette::new(&groups);
    let charts: Vec<Chart> = workloads(&groups)
        .into_iter()
        .filter_map(|workload| {
            let own: Vec<&Group> = groups.iter().filter(|it| it.workload == workload).collect();
            (own.len() > 1).then(|| {
                let mut chart = ttft(results, workload, &own, &policies);
                chart.title = format!("{workload}: {}", chart.title);
                chart
            })
        })
        .collect();
    let all = policies.0.iter();
    let (faint, mut legend): (Vec<_>, Vec<_>) =
        all.cloned().partition(|(_, look)| *look == Look::Faint);
    if !faint.is_empty() {
        legend.push((
            format!("{} more published policies", faint.len()),
            Look::Faint,
        ));
    }
    legend.push(("bound: one pooled server".to_owned(), Look::Bound));
    curves::figure(&charts, &legend)
}

/// Time to first token over load.
fn ttft(results: &Results, workload: &str, groups: &[&Group], policies: &Palette) -> Chart {
    Chart {
        title: TTFT.to_owned(),
        x_label: note(results, workload)
            .map_or("load", |it| &it.unit)
            .to_owned(),
        log_y: true,
        limit: Some(results.manifest.plan.slo.ttft),
        series: over_load(groups, policies, |it| it.ttft_p90),
    }
}

fn workloads(groups: &[Group]) -> Vec<&str> {
    let mut workloads: Vec<&str> = Vec::new();
    for group in groups {
        if !workloads.contains(&group.workload.as_str()) {
            workloads.push(&group.workload);
        }
    }
    workloads
}

fn whole(results: &Results, outcome: Option<&Outcome>) -> String {
    let groups = groups(results);
    let policies = Palette::new(&groups);
    let mut out = String::from("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>Pointsman lab</title>");
    let _ = write!(out, "<style>{STYLE}</style></head><body>");
    head(&mut out, results);
    if let Some(outcome) = outcome {
        out.push_str(&super::goals::section(outcome));
    }
    if groups.len() > 3 {
        out.push_str("<h2>All cells</h2>");
        let figure = dots::figure(&groups, OURS, |name| policies.drawn(name), false);
        out.push_str(&figure);
        legend(&mut out, &policies, &groups.iter().collect::<Vec<_>>());
    }
    for workload in workloads(&groups) {
        let own: Vec<&Group> = groups.iter().filter(|it| it.workload == workload).collect();
        section(&mut out, results, workload, &own, &policies);
    }
    manifest(&mut out, results);
    out.push_str("</body></html>\n");
    out
}

/// More policies than this are too many for colours: the best, and the simple ones that everybody knows, stand out then.
const MOST_COLOURS: usize = 7;
const KNOWN: [&str; 2] = ["round-robin", "gaie-no-hit-lru"];
const OURS: &str = "pointsman";

/// How each policy looks everywhere on the page.
struct Palette(Vec<(String, Look)>);

impl Palette {
    fn new(groups: &[Group]) -> Self {
        let mut names: Vec<&str> = Vec::new();
        for row in groups.iter().flat_map(|it| &it.rows) {
            if !row.is_bound && !names.contains(&row.policy.as_str()) {
                names.push(&row.policy);
            }
        }
        let many = names.len() > MOST_COLOURS;
        let best = if many { best(groups) } else { Vec::new() };
        let mut next = 0;
        let look = |name: &str| {
            if name == OURS {
                return Look::Ours;
            }
            if many && !best.contains(&name) && !KNOWN.contains(&name) {
                return Look::Faint;
            }
            next += 1;
            Look::Colour(next - 1)
        };
        let looks: Vec<Look> = names.iter().copied().map(look).collect();
        Self(names.into_iter().map(str::to_owned).zip(looks).collect())
    }

    /// How a policy's dots are drawn.
    fn drawn(&self, policy: &str) -> Look {
        self.look(policy).unwrap_or(Look::Faint)
    }

    fn look(&self, policy: &str) -> Option<Look> {
        let found = self.0.iter().find(|(name, _)| name == policy);
        found.map(|(_, look)| *look)
    }
}

/// The policies that are the best in most groups, ours apart; at most three.
fn best(groups: &[Group]) -> Vec<&str> {
    let mut wins: Vec<(&str, usize)> = Vec::new();
    for group in groups {
        let others = group
            .rows
            .iter()
            .filter(|it| !it.is_bound && it.policy != OURS);
        let least = others.min_by(|a, b| a.ttft_p90.median.total_cmp(&b.ttft_p90.median));
        let Some(row) = least else { continue };
        match wins.iter_mut().find(|(name, _)| *name == row.policy) {
            Some((_, count)) => *count += 1,
            None => wins.push((&row.policy, 1)),
        }
    }
    wins.sort_by_key(|it| std::cmp::Reverse(it.1));
    wins.into_iter().take(3).map(|it| it.0).collect()
}

fn head(out: &mut String, results: &Results) {
    let plan = &results.manifest.plan;
    let _ = write!(
        out,
        "<h1>Placement policies side by side</h1><p>Simulated fleets in virtual time; no GPU took part. {} seeds, step \
         noise {} %, network {} ms each way, {} gateway(s). Values are medians over seeds with a distribution-free \
         interval of 95 % where there are six seeds or more (the range otherwise: 94 % with five). Jobs that were \
         refused or never served count with the time to the run's end.</p>",
        plan.seeds.len(),
        short(plan.step_noise * 100.0),
        short(plan.network_delay * 1e3),
        plan.gateways,
    );
}

fn section(
    out: &mut String,
    results: &Results,
    workload: &str,
    groups: &[&Group],
    policies: &Palette,
) {
    let note = note(results, workload);
    let (about, unit) = note.map_or(("", "load"), |it| (&it.about, &it.unit));
    let _ = write!(out, "<h2>{}</h2><p>{}</p>", escape(workload), escape(about));
    legend(out, policies, groups);
    out.push_str("<div class=\"charts\">");
    type Value = fn(&Row) -> Interval;
    let charts: [(&str, bool, Value); 8] = [
        ("time to first token, p50 (s)", true, |it| it.ttft_p50),
        (TTFT, true, |it| it.ttft_p90),
        (TPOT, true, |it| it.tpot_p90),
        ("end to end, p90 (s)", true, |it| it.e2e_p90),
        ("share of prompt tokens found cached", false, |it| {
            it.hit_ratio
        }),
        ("share of jobs within the objective", false, |it| {
            it.slo_share
        }),
        ("fairness: Jain's index over tenants", false, |it| {
            it.jain_flows
        }),
        ("busy share of the engines", false, |it| it.utilisation),
    ];
    let slo = results.manifest.plan.slo;
    for (title, log_y, value) in charts {
        let chart = Chart {
            title: title.to_owned(),
            x_label: unit.to_owned(),
            log_y,
            limit: match title {
                TTFT => Some(slo.ttft),
                TPOT => Some(slo.tpot),
                _ => None,
            },
            series: over_load(groups, policies, value),
        };
        out.push_str(&chart.svg());
    }
    out.push_str("</div>");
    for group in groups {
        table(out, group);
    }
    if let Some(last) = groups.last() {
        courses(out, results, last, policies);
    }
}

fn note<'a>(results: &'a Results, workload: &str) -> Option<&'a WorkloadNote> {
    let notes = &results.manifest.workloads;
    notes.iter().find(|it| it.name == workload)
}

fn legend(out: &mut String, policies: &Palette, groups: &[&Group]) {
    out.push_str("<div class=\"legend\">");
    let mut entry = |name: &str, look| {
        let _ = write!(
            out,
            "<span><svg viewBox=\"0 0 30 10\"><path fill=\"none\" {} d=\"M0 5H30\"/></svg>{}</span>",
            stroke(look),
            escape(name)
        );
    };
    let here = |name: &str| {
        let mut rows = groups.iter().flat_map(|it| &it.rows);
        rows.any(|row| row.policy == name)
    };
    let shown = policies.0.iter().filter(|(name, _)| here(name));
    for (name, look) in shown.clone().filter(|it| it.1 != Look::Faint) {
        entry(name, *look);
    }
    let faint = shown.filter(|it| it.1 == Look::Faint).count();
    if faint > 0 {
        entry(&format!("{faint} more published policies"), Look::Faint);
    }
    let rows = groups.first().map_or(&[][..], |it| &it.rows);
    if rows.iter().any(|row| row.is_bound) {
        entry("bound: one pooled server", Look::Bound);
    }
    out.push_str("</div>");
}

fn over_load(groups: &[&Group], policies: &Palette, value: fn(&Row) -> Interval) -> Vec<Series> {
    let mut series: Vec<Series> = Vec::new();
    for group in groups {
        for row in &group.rows {
            let interval = value(row);
            let point = Point {
                x: group.load,
                y: interval.median,
                low: interval.low,
                high: interval.high,
            };
            match series.iter_mut().find(|it| it.name == row.policy) {
                Some(it) => it.points.push(point),
                None => series.push(Series {
                    name: row.policy.clone(),
                    points: vec![point],
                    look: policies.look(&row.policy).unwrap_or(Look::Bound),
                }),
            }
        }
    }
    for it in &mut series {
        it.points.sort_by(|a, b| a.x.total_cmp(&b.x));
    }
    series
}

fn table(out: &mut String, group: &Group) {
    let best = group.rows.iter().filter(|it| !it.is_bound);
    let best = best
        .map(|it| it.ttft_p90.median)
        .fold(f64::INFINITY, f64::min);
    let _ = write!(
        out,
        "<h3>load {}</h3><div class=\"wide\"><table><tr><th>policy<th>TTFT p50 s<th>p90 s<th>p99 s<th>p90 / bound<th>p90 / best other\
         <th>TPOT p90 ms<th>E2E p90 s<th>hits<th>in objective<th>busy<th>max/mean<th>KV<th>KV variance<th>Jain tenants<th>preempted<th>lost</tr>",
        short(group.load)
    );
    for row in &group.rows {
        let class = if row.is_bound {
            " class=\"bound\""
        } else if row.ttft_p90.median <= best {
            " class=\"best\""
        } else {
            ""
        };
        let _ = write!(out, "<tr{class}><td>{}", escape(&row.policy));
        let cells = [
            interval(row.ttft_p50, 1.0),
            interval(row.ttft_p90, 1.0),
            interval(row.ttft_p99, 1.0),
            ratio(row.to_bound),
            ratio(row.to_best),
            interval(row.tpot_p90, 1e3),
            interval(row.e2e_p90, 1.0),
            short(row.hit_ratio.median),
            short(row.slo_share.median),
            short(row.utilisation.median),
            short(row.max_over_mean.median),
            short(row.kv_usage.median),
            short(row.kv_variance.median),
            short(row.jain_flows.median),
            short(row.preemptions.median),
            short(row.lost.median),
        ];
        for cell in cells {
            let _ = write!(out, "<td>{cell}");
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div>");
}

fn interval(it: Interval, unit: f64) -> String {
    if it.high > it.low {
        let (low, high) = (short(it.low * unit), short(it.high * unit));
        format!("{} <small>[{low}, {high}]</small>", short(it.median * unit))
    } else {
        short(it.median * unit)
    }
}

fn ratio(it: Option<PairedRatio>) -> String {
    match it {
        Some(it) if it.count > 1 => format!(
            "{:.2} <small>[{:.2}, {:.2}]</small>",
            it.ratio, it.low, it.high
        ),
        Some(it) => format!("{:.2}", it.ratio),
        None => String::new(),
    }
}

/// How the run of the first seed went at a load: KV use, its spread, and what waits.
fn courses(out: &mut String, results: &Results, group: &Group, policies: &Palette) {
    let _ = write!(
        out,
        "<h3>over time at load {}, first seed</h3><div class=\"charts\">",
        short(group.load)
    );
    type Value = fn(&Moment) -> f64;
    let charts: [(&str, Value); 4] = [
        ("share of engines at work", |it| it.busy),
        ("KV space in use, mean of engines", |it| it.kv),
        ("KV space in use, fullest less emptiest engine", |it| {
            it.kv_high - it.kv_low
        }),
        ("requests waiting, engines and gateway", |it| {
            it.waiting + it.queued
        }),
    ];
    for (title, value) in charts {
        let series = results.cells.iter().filter_map(|cell| {
            let it = &cell.summary;
            let here = it.workload == group.workload && it.load == group.load;
            let look = policies.look(&it.policy)?;
            (here && !cell.timeline.is_empty()).then(|| Series {
                name: it.policy.clone(),
                points: cell.timeline.iter().map(|at| moment(at, value)).collect(),
                look,
            })
        });
        let chart = Chart {
            title: title.to_owned(),
            x_label: "virtual seconds".to_owned(),
            log_y: false,
            limit: None,
            series: series.collect(),
        };
        out.push_str(&chart.svg());
    }
    out.push_str("</div>");
}

fn moment(at: &Moment, value: fn(&Moment) -> f64) -> Point {
    let y = value(at);
    Point {
        x: at.at,
        y,
        low: y,
        high: y,
    }
}

fn manifest(out: &mut String, results: &Results) {
    let manifest = &results.manifest;
    let _ = write!(
        out,
        "<h2>Manifest</h2><p>lab {}, {} runs in {} s.</p>",
        escape(&manifest.version),
        results.cells.len(),
        short(manifest.real_seconds)
    );
    let plan = serde_json::to_value(&manifest.plan).unwrap_or_default();
    out.push_str("<h3>settings</h3><table>");
    for (name, value) in plan.as_object().into_iter().flatten() {
        let value = escape(&value.to_string());
        let _ = write!(out, "<tr><td>{}<td>{value}</tr>", escape(name));
    }
    out.push_str("</table>");
    for note in &manifest.workloads {
        for kind in &note.fleet {
            let name = escape(&note.name);
            let _ = write!(
                out,
                "<h3>{name}: constants of {} engine(s)</h3><table>",
                kind.engines
            );
            for (name, value) in &kind.values {
                let _ = write!(out, "<tr><td>{}<td>{}</tr>", escape(name), short(*value));
            }
            out.push_str("</table>");
        }
    }
    out.push_str("<h3>policies</h3><ul>");
    for (name, about) in &manifest.policies {
        let _ = write!(out, "<li><b>{}</b> {}</li>", escape(name), escape(about));
    }
    out.push_str("</ul><h3>sources</h3><ul>");
    for source in &manifest.sources {
        let _ = write!(out, "<li>{}</li>", escape(source));
    }
    out.push_str("</ul>");
}
