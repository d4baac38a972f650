//! The goals on the page: what was wanted, what was measured, what the literature reaches.

use std::fmt::Write as _;

use super::svg::escape;
use crate::goals::{Outcome, Robust, Verdict, text};

/// The section that stands before the cells.
pub(super) fn section(outcome: &Outcome) -> String {
    let mut out = format!("<h2>Goals</h2><p>{}</p>", escape(&text::preamble(outcome)));
    table(&mut out, &outcome.verdicts);
    out.push_str("<h2>Claims of the announcement, against round robin</h2>");
    table(&mut out, &outcome.claims);
    robustness(&mut out, &outcome.robustness);
    out
}

fn table(out: &mut String, verdicts: &[Verdict]) {
    out.push_str(
        "<div class=\"wide\"><table class=\"goals\"><tr><th>&nbsp;<th>goal<th>limit<th>measured<th>verdict<th>best published</tr>",
    );
    for it in verdicts {
        let class = match it.met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "none",
        };
        let _ = write!(
            out,
            "<tr class=\"{class}\"><td>{}<td>{}<br><small>{}</small><td>{}<td>{}<td><b>{}</b><td>{}</tr>",
            escape(&it.id),
            escape(&it.goal),
            escape(&it.note),
            escape(&text::limit(it)),
            escape(&text::measured(it)),
            it.word(),
            escape(&text::beside(it))
        );
    }
    out.push_str("</table></div>");
}

fn robustness(out: &mut String, rows: &[Robust]) {
    if rows.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Robustness</h2><p>p90 of the time to first token under other circumstances: by our own under the usual \
         ones, and by the usual circumstances' best published policy under the same.</p><div class=\"wide\"><table>\
         <tr><th>circumstances<th>cell<th>change<th>by the best published<th>which</tr>",
    );
    for it in rows {
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
            escape(&it.condition),
            escape(&it.place.name()),
            text::times(it.change),
            text::times(it.to_best),
            escape(&it.best)
        );
    }
    out.push_str("</table></div>");
}
