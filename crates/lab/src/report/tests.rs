//! The page and the tables.

use super::*;
use crate::compare::tests::{small, toys};

#[test]
fn a_group_gathers_all_seeds_and_compares_with_the_best_other() {
    let results = toys(&small(), 2).unwrap();
    let groups = groups(&results);
    assert_eq!(groups.len(), 2);
    for group in &groups {
        let names: Vec<&str> = group.rows.iter().map(|it| it.policy.as_str()).collect();
        assert_eq!(
            names,
            ["bound-fcfs", "bound-sjf", "pointsman", "pool-round-robin"]
        );
        let (ours, theirs) = (&group.rows[2], &group.rows[3]);
        assert_eq!(ours.ttft_p90.count, 2);
        let (a, b) = (ours.to_best.unwrap(), theirs.to_best.unwrap());
        assert!((a.ratio * b.ratio - 1.0).abs() < 1e-9);
        // Noise moves both a little.
        assert!(ours.to_bound.unwrap().ratio > 0.95);
        assert_eq!(group.rows[0].to_bound, None);
    }
}

#[test]
fn the_page_is_whole_and_loads_nothing() {
    let mut plan = small();
    plan.workloads = vec!["<toy & \"co\">".to_owned()];
    let results = toys(&plan, 2).unwrap();
    let page = page(&results);
    assert!(page.contains("&lt;toy &amp; &quot;co&quot;&gt;"));
    assert!(!page.contains("<toy"));
    for tag in ["svg", "table", "div", "g", "h2", "h3", "ul"] {
        let opened =
            page.matches(&format!("<{tag} ")).count() + page.matches(&format!("<{tag}>")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    for outside in ["http:", "https:", "src=", "<script", "url(", "NaN", "inf"] {
        assert!(!page.contains(outside), "{outside}");
    }
    // Charts over the load, over time, and the legend.
    assert_eq!(page.matches("<svg").count(), 8 + 4 + 3);
    assert!(text(&results).contains("pool-round-robin"));
}

#[test]
fn a_figure_has_a_chart_for_each_workload_with_several_loads() {
    let mut plan = small();
    plan.workloads = vec!["toy".to_owned(), "<other>".to_owned()];
    let figure = over_load_figure(&toys(&plan, 2).unwrap());
    assert_eq!(figure.matches("<svg").count(), 1);
    assert!(figure.contains("toy: time to first token") && figure.contains("&lt;other&gt;: time"));
    assert!(figure.contains("pool-round-robin") && !figure.contains("NaN"));
    plan.loads.truncate(1);
    let figure = over_load_figure(&toys(&plan, 2).unwrap());
    assert!(!figure.contains("time to first token, p90"));
}

#[test]
fn numbers_are_short() {
    for (value, text) in [
        (0.0, "0"),
        (1234.5, "1234"),
        (12.34, "12.3"),
        (1.5, "1.5"),
        (0.25, "0.25"),
        (0.0123, "0.0123"),
        (5.8e-5, "5.8e-5"),
    ] {
        assert_eq!(svg::short(value), text);
    }
}
