//! All cells at a glance: how far each policy is from the best published one, as dots on a line for each cell.

use std::fmt::Write as _;

use super::groups::Group;
use super::svg::{Look, escape, short, stroke};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 48.0;
const ROW: f64 = 24.0;
const BOTTOM: f64 = 40.0;
/// Ratios beyond these are drawn at the edge.
const RANGE: [f64; 2] = [0.1, 100.0];
const TICKS: [f64; 10] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];

/// What the figure needs where no page's style is at hand.
pub(super) const ALONE: &str = "<style>text{fill:#1c2430;font:11px system-ui,sans-serif}.title{font-weight:600;font-size:13px}\
.tick{fill:#5c6674}.grid{stroke:#dfe3e8}.limit{stroke:#c33;stroke-dasharray:6 4;fill:none}rect{fill:#fff}</style>";

/// The figure; `look` says how a policy is drawn, `alone` makes it a file of its own.
pub(super) fn figure(
    groups: &[Group],
    ours: &str,
    look: impl Fn(&str) -> Look,
    alone: bool,
) -> String {
    let height = TOP + ROW * groups.len() as f64 + BOTTOM;
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" aria-label=\"all cells\">"
    );
    if alone {
        let _ = write!(out, "{ALONE}<rect width=\"{WIDTH}\" height=\"{height}\"/>");
    }
    let _ = write!(
        out,
        "<text class=\"title\" x=\"12\" y=\"18\">p90 time to first token by the best published policy of each cell</text>\
         <text class=\"tick\" x=\"12\" y=\"35\">less is better; large: {}, small: each published policy, \
         at the right edge 100 times or more</text>",
        escape(ours)
    );
    let base = TOP + ROW * groups.len() as f64;
    for tick in TICKS {
        let x = at(tick);
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{base:.1}\"/><text class=\"tick\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{}x</text>",
            base + 16.0,
            short(tick)
        );
    }
    let _ = write!(
        out,
        "<path stroke=\"#888\" d=\"M{0:.1} {TOP}V{base:.1}\"/>",
        at(1.0)
    );
    for (row, group) in groups.iter().enumerate() {
        let y = TOP + ROW * (row as f64 + 0.5);
        line(&mut out, group, y, ours, &look);
    }
    out.push_str("</svg>");
    out
}

fn at(ratio: f64) -> f64 {
    let of = |it: f64| it.log10();
    let share =
        (of(ratio.clamp(RANGE[0], RANGE[1])) - of(RANGE[0])) / (of(RANGE[1]) - of(RANGE[0]));
    LEFT + share * (WIDTH - RIGHT - LEFT)
}

fn line(out: &mut String, group: &Group, y: f64, ours: &str, look: &impl Fn(&str) -> Look) {
    let _ = write!(
        out,
        "<text text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{} {}</text><path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/>",
        LEFT - 10.0,
        y + 4.0,
        escape(&group.workload),
        short(group.load),
        WIDTH - RIGHT
    );
    let published = || {
        let rows = group.rows.iter();
        rows.filter(|it| !it.is_bound && !it.policy.starts_with(ours))
    };
    let best = published().map(|it| it.ttft_p90.median);
    let best = best.fold(f64::INFINITY, f64::min);
    if !best.is_finite() || best <= 0.0 {
        return;
    }
    let own = group.rows.iter().filter(|it| it.policy == ours);
    for row in published().chain(own) {
        let ratio = row.ttft_p90.median / best;
        let radius = if row.policy == ours { 5.5 } else { 3.0 };
        let fill = if row.policy == ours {
            "#0072b2"
        } else {
            "none"
        };
        let _ = write!(
            out,
            "<circle {} stroke-width=\"1.4\" fill=\"{fill}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"{radius}\"><title>{}: {}x</title></circle>",
            colour(look(&row.policy)),
            at(ratio),
            escape(&row.policy),
            short(ratio)
        );
    }
}

/// The stroke without its width, which dots have of their own.
fn colour(look: Look) -> String {
    let all = stroke(look);
    let parts = all.split(' ').filter(|it| {
        !it.starts_with("stroke-width") && !it.starts_with("stroke-dasharray") && it.contains('=')
    });
    parts.collect::<Vec<_>>().join(" ")
}
