//! Line charts as SVG, small and without a library.

use std::fmt::Write as _;

pub(super) const WIDTH: f64 = 460.0;
pub(super) const HEIGHT: f64 = 260.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 40.0;

/// Colours that people with colour blindness can tell apart (Okabe and Ito), then the same dashed.
const COLOURS: [&str; 6] = [
    "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f",
];
const OURS: &str = "#0072b2";

/// A point and its interval.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// One line.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<Point>,
    /// How it is drawn.
    pub(super) look: Look,
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// What the page is about.
    Ours,
    /// By its place in the palette.
    Colour(usize),
    /// One of many that are only background.
    Faint,
    /// Not a policy.
    Bound,
}

/// One chart.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x_label: String,
    pub(super) log_y: bool,
    /// A value not to be exceeded: a line, and a mark where a series that is not faint crosses it.
    pub(super) limit: Option<f64>,
    pub(super) series: Vec<Series>,
}

/// Stroke attributes.
pub(super) fn stroke(look: Look) -> String {
    match look {
        Look::Ours => format!("stroke=\"{OURS}\" stroke-width=\"3\""),
        Look::Bound => "stroke=\"#888\" stroke-width=\"1.6\" stroke-dasharray=\"2 3\"".to_owned(),
        Look::Faint => "stroke=\"#999\" stroke-width=\"1\" stroke-opacity=\".6\"".to_owned(),
        Look::Colour(place) => {
            let dash = match place / COLOURS.len() {
                0 => "",
                1 => " stroke-dasharray=\"7 3\"",
                _ => " stroke-dasharray=\"2 2\"",
            };
            let colour = COLOURS[place % COLOURS.len()];
            format!("stroke=\"{colour}\" stroke-width=\"1.7\"{dash}")
        }
    }
}

/// Text that is safe inside HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// A number with about three digits that mean something.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    match size {
        0.0 => "0".to_owned(),
        s if s >= 1000.0 => format!("{value:.0}"),
        s if s >= 100.0 => format!("{value:.0}"),
        s if s >= 10.0 => trim(format!("{value:.1}")),
        s if s >= 1.0 => trim(format!("{value:.2}")),
        s if s >= 0.1 => trim(format!("{value:.3}")),
        s if s >= 0.001 => trim(format!("{value:.4}")),
        _ => format!("{value:.1e}"),
    }
}

fn trim(text: String) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A scale from values to pixels.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
    from: f64,
    to: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let of = |it: f64| if self.log { it.max(1e-9).log10() } else { it };
        let span = (of(self.high) - of(self.low)).max(1e-12);
        let share = (of(value) - of(self.low)) / span;
        self.from + share.clamp(-0.02, 1.02) * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.log {
            return self.log_ticks();
        }
        let step = nice((self.high - self.low) / 5.0);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|it| it as f64 * step).collect()
    }

    /// Powers of ten; 2 and 5 between them while there are few.
    fn log_ticks(&self) -> Vec<f64> {
        let decades = (self.high / self.low).log10();
        let parts: &[f64] = if decades > 3.0 {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let (first, last) = (
            self.low.log10().floor() as i32,
            self.high.log10().ceil() as i32,
        );
        let all =
            (first..=last).flat_map(|power| parts.iter().map(move |it| it * 10_f64.powi(power)));
        all.filter(|it| *it >= self.low * 0.999 && *it <= self.high * 1.001)
            .collect()
    }
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn nice(step: f64) -> f64 {
    let power = 10_f64.powf(step.max(1e-12).log10().floor());
    let part = step / power;
    let factor = [1.0, 2.0, 5.0].into_iter().find(|it| part <= it + 1e-9);
    factor.unwrap_or(10.0) * power
}

impl Chart {
    /// The chart as an `<svg>` element; empty without a point.
    pub(super) fn svg(&self) -> String {
        let inner = self.inner();
        if inner.is_empty() {
            return inner;
        }
        let title = escape(&self.title);
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">{inner}</svg>"
        )
    }

    /// What is in that element.
    pub(super) fn inner(&self) -> String {
        let points = || self.series.iter().flat_map(|it| &it.points);
        if points().next().is_none() {
            return String::new();
        }
        let (x, y) = self.axes();
        let mut out = format!(
            "<text class=\"title\" x=\"{LEFT}\" y=\"15\">{}</text>",
            escape(&self.title)
        );
        grid(&mut out, &x, &y, &self.x_label);
        if let Some(limit) = self.limit.filter(|it| *it > y.low && *it < y.high) {
            let _ = write!(
                out,
                "<path class=\"limit\" d=\"M{LEFT} {0:.1}H{1}\"/>",
                y.at(limit),
                WIDTH - RIGHT
            );
        }
        let faint = |it: &&Series| it.look == Look::Faint;
        for series in self.series.iter().filter(faint) {
            line(&mut out, series, &x, &y);
        }
        // What the page is about lies on top.
        for series in self.series.iter().rev().filter(|it| !faint(it)) {
            line(&mut out, series, &x, &y);
            if let Some(knee) = self.limit.and_then(|limit| crossing(&series.points, limit)) {
                mark(&mut out, series, knee, &x, &y);
            }
        }
        out
    }

    fn axes(&self) -> (Axis, Axis) {
        let points = || self.series.iter().flat_map(|it| &it.points);
        let fold = |of: fn(&Point) -> f64, pick: fn(f64, f64) -> f64, start| {
            points()
                .map(of)
                .filter(|it: &f64| it.is_finite())
                .fold(start, pick)
        };
        let (left, right) = (
            fold(|it| it.x, f64::min, f64::INFINITY),
            fold(|it| it.x, f64::max, f64::NEG_INFINITY),
        );
        let high = fold(|it| it.high.max(it.y), f64::max, 1e-9);
        let positive = points().map(|it| it.low.min(it.y)).filter(|it| *it > 0.0);
        let least = positive.fold(high, f64::min);
        let margin = if right > left {
            0.0
        } else {
            0.5 * left.abs().max(1.0)
        };
        let x = Axis {
            low: left - margin,
            high: right + margin,
            log: false,
            from: LEFT,
            to: WIDTH - RIGHT,
        };
        let y = Axis {
            low: if self.log_y { least * 0.8 } else { 0.0 },
            high: high * if self.log_y { 1.25 } else { 1.05 },
            log: self.log_y,
            from: HEIGHT - BOTTOM,
            to: TOP,
        };
        (x, y)
    }
}

fn grid(out: &mut String, x: &Axis, y: &Axis, x_label: &str) {
    for tick in y.ticks() {
        let at = y.at(tick);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 5.0,
            at + 3.5,
            short(tick)
        );
    }
    let base = HEIGHT - BOTTOM;
    for tick in x.ticks() {
        let at = x.at(tick);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{base}\"/><text class=\"tick\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
            base + 15.0,
            short(tick)
        );
    }
    let _ = write!(
        out,
        "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 8.0,
        escape(x_label)
    );
}

/// Where a line first rises over `limit`; both in the chart's units.
fn crossing(points: &[Point], limit: f64) -> Option<(f64, f64)> {
    points.windows(2).find_map(|pair| {
        let (a, b) = (pair[0], pair[1]);
        (a.y <= limit && b.y > limit).then(|| {
            let share = (limit.ln() - a.y.max(1e-9).ln()) / (b.y.ln() - a.y.max(1e-9).ln());
            (a.x + (b.x - a.x) * share.clamp(0.0, 1.0), limit)
        })
    })
}

fn mark(out: &mut String, series: &Series, (at, limit): (f64, f64), x: &Axis, y: &Axis) {
    let _ = write!(
        out,
        "<g fill=\"none\" {}><title>{}: {} at the limit</title><path stroke-dasharray=\"none\" d=\"M{:.1} {:.1}l5 9h-10z\"/></g>",
        stroke(series.look),
        escape(&series.name),
        short(at),
        x.at(at),
        y.at(limit)
    );
}

fn line(out: &mut String, series: &Series, x: &Axis, y: &Axis) {
    let stroke = stroke(series.look);
    let points: Vec<String> = series
        .points
        .iter()
        .map(|it| format!("{:.1},{:.1}", x.at(it.x), y.at(it.y)))
        .collect();
    let _ = write!(
        out,
        "<g fill=\"none\" {stroke}><title>{}</title><polyline points=\"{}\"/>",
        escape(&series.name),
        points.join(" ")
    );
    for it in &series.points {
        let at = x.at(it.x);
        if it.high > it.low && series.look != Look::Faint {
            let (low, high) = (y.at(it.low), y.at(it.high));
            let _ = write!(
                out,
                "<path stroke-width=\"1\" stroke-dasharray=\"none\" d=\"M{at:.1} {low:.1}V{high:.1}\"/>"
            );
        }
        if series.points.len() <= 30 && series.look != Look::Faint {
            let _ = write!(
                out,
                "<circle cx=\"{at:.1}\" cy=\"{:.1}\" r=\"2.2\"/>",
                y.at(it.y)
            );
        }
    }
    out.push_str("</g>");
}
