//! An `EndpointPickerConfig` made settings of the fleet.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::picker_config::{
    BandSection, FlowSection, Metric, Parameters, PickerConfig, Plugin, Role,
};
use api::selector::Operator;
use fleet::{FleetOptions, MetricSource, PolicyFactory};
use scheduling::policy::profile::{
    Filter, Gauge, Headroom, Limit, Picker, Profile, ProfilePolicy, Requirement, Scorer,
};
use scheduling::{Admission, Band, Detector, Fairness, FlowControl, Ordering};

/// The label by which servers of prefill and decode are told apart.
const ROLE_LABEL: &str = "llm-d.ai/role";
/// In place of no limit on a wait: longer than anybody waits.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads a file and applies it.
///
/// # Errors
/// A file that cannot be read, or the first field that is wrong, with its place.
pub(crate) fn apply_file(path: &Path, options: &mut FleetOptions) -> anyhow::Result<Named> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    apply_text(&text, options).with_context(|| path.display().to_string())
}

/// How many servers a configuration wants named for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Named(pub(crate) usize);

/// Applies a configuration.
///
/// # Errors
/// The first field that is wrong, with its place.
pub(crate) fn apply_text(text: &str, options: &mut FleetOptions) -> anyhow::Result<Named> {
    let config = PickerConfig::read(text)?;
    for note in &config.notes {
        tracing::info!("{note}");
    }
    let profile = profile(&config);
    options.scheduling.detector = detector(&config.detector);
    options.scheduling.flow = flow(&config, &options.scheduling.flow);
    for plugin in &config.plugins {
        from_plugin(plugin, options).with_context(|| format!("plugin {}", plugin.name))?;
    }
    options.scheduling.validate()?;
    tracing::info!(
        filters = profile.filters.len(),
        scorers = profile.scorers.len(),
        flow_control = config.flow.is_some(),
        "servers are chosen by an EndpointPickerConfig"
    );
    let profile = Arc::new(profile);
    options.policy = Some(PolicyFactory::new(move || {
        Box::new(ProfilePolicy::new(Arc::clone(&profile)))
    }));
    Ok(named(&config))
}

/// `maxNumOfEndpoints` of the profile's picker.
fn named(config: &PickerConfig) -> Named {
    let mut pickers = config.profile.iter().map(|placed| &placed.plugin);
    let picker = pickers.find(|plugin| plugin.kind.role == Role::Picker);
    Named(picker.map_or(1, |plugin| {
        plugin.parameters.number("maxNumOfEndpoints") as usize
    }))
}

fn profile(config: &PickerConfig) -> Profile {
    let mut profile = Profile::default();
    for placed in &config.profile {
        let plugin = &placed.plugin;
        match plugin.kind.role {
            Role::Filter | Role::Detector => profile.filters.extend(filter(plugin)),
            Role::Scorer => {
                if let Some(scorer) = scorer(plugin) {
                    profile.scorers.push((scorer, placed.weight));
                }
            }
            Role::Picker => {
                profile.picker = match plugin.kind.name {
                    "random-picker" => Picker::Random,
                    "weighted-random-picker" => Picker::WeightedRandom,
                    _ => Picker::MaxScore,
                };
            }
            _ => {}
        }
    }
    profile
}

fn filter(plugin: &Plugin) -> Option<Filter> {
    let given = &plugin.parameters;
    Some(match plugin.kind.name {
        "label-selector-filter" | "by-label-selector" => Filter::Labels(selector(given)),
        "by-label" => Filter::Labels(vec![Requirement::In {
            key: given.text("label").unwrap_or_default().to_owned(),
            values: given.texts("validValues"),
            or_absent: given.flag("allowsNoLabel"),
        }]),
        "encode-filter" => role(
            &["encode", "encode-prefill", "encode-prefill-decode"],
            false,
        ),
        "prefill-filter" => role(
            &[
                "prefill",
                "encode-prefill",
                "prefill-decode",
                "encode-prefill-decode",
                "both",
            ],
            false,
        ),
        "decode-filter" => role(
            &["decode", "prefill-decode", "encode-prefill-decode", "both"],
            true,
        ),
        "prefix-cache-affinity-filter" => Filter::PrefixAffinity {
            threshold: given.number("affinityThreshold"),
            exploration: given.number("explorationProbability"),
            penalty: given.number("maxTTFTPenaltyMs") / 1000.0,
            throughput: (given.text("ttftSource") == Some("prefillThroughput"))
                .then(|| given.number("peakPrefillThroughput")),
        },
        "slo-headroom-tier-filter" => Filter::HeadroomTier {
            exploration: given.number("epsilonExploreNeg"),
        },
        "utilization-filter" => Filter::Utilization {
            limits: limits(given),
            or_all: given.flag("fallbackOnEmpty"),
        },
        "utilization-detector" => {
            let more = 1.0 + given.number("headroom");
            let limit = |gauge, name: &str| below(gauge, given.number(name) * more);
            Filter::Utilization {
                limits: vec![
                    limit(Gauge::Waiting, "queueDepthThreshold"),
                    limit(Gauge::KvUsage, "kvCacheUtilThreshold"),
                ],
                or_all: true,
            }
        }
        "concurrency-detector" => {
            let more = 1.0 + given.number("headroom");
            let (requests, tokens) = concurrency(given);
            let requests = requests.map(|most| below(Gauge::Active, most * more));
            let tokens = tokens.map(|most| below(Gauge::PendingTokens, most * more));
            Filter::Utilization {
                limits: requests.into_iter().chain(tokens).collect(),
                or_all: false,
            }
        }
        _ => return None,
    })
}

const fn below(gauge: Gauge, most: f64) -> Limit {
    Limit {
        gauge,
        most,
        strict: true,
    }
}

fn role(roles: &[&str], or_absent: bool) -> Filter {
    Filter::Labels(vec![Requirement::In {
        key: ROLE_LABEL.to_owned(),
        values: roles.iter().map(|&it| it.to_owned()).collect(),
        or_absent,
    }])
}

fn selector(given: &Parameters) -> Vec<Requirement> {
    let selector = given.selector();
    let labels = selector.match_labels.into_iter();
    let mut all: Vec<Requirement> = labels
        .map(|(key, value)| Requirement::In {
            key,
            values: vec![value],
            or_absent: false,
        })
        .collect();
    for it in selector.match_expressions {
        let (key, values) = (it.key, it.values);
        all.push(match it.operator {
            Operator::NotIn => Requirement::NotIn { key, values },
            Operator::Exists => Requirement::Exists(key),
            Operator::DoesNotExist => Requirement::Absent(key),
            // An operator that nobody knows is refused on reading.
            Operator::In | Operator::Unknown(_) => Requirement::In {
                key,
                values,
                or_absent: false,
            },
        });
    }
    all
}

fn limits(given: &Parameters) -> Vec<Limit> {
    let limit = |it: api::picker_config::Condition| Limit {
        gauge: match it.metric {
            Metric::ActiveRequests => Gauge::Active,
            Metric::RunningRequests => Gauge::Running,
            Metric::WaitingQueue => Gauge::Waiting,
            Metric::KvCacheUtilization => Gauge::KvUsage,
        },
        most: it.max_value,
        strict: false,
    };
    given.conditions().into_iter().map(limit).collect()
}

fn scorer(plugin: &Plugin) -> Option<Scorer> {
    let given = &plugin.parameters;
    Some(match plugin.kind.name {
        "queue-scorer" => Scorer::Queue,
        "running-requests-size-scorer" => Scorer::Running,
        "kv-cache-utilization-scorer" => Scorer::KvUsage,
        "load-aware-scorer" => Scorer::LoadAware {
            threshold: given.number("threshold"),
        },
        "active-request-scorer" => Scorer::ActiveRequests {
            idle: given.number("idleThreshold"),
            busy: given.number("maxBusyScore"),
        },
        "token-load-scorer" => Scorer::TokenLoad {
            threshold: given.number("queueThresholdTokens"),
        },
        "prefix-cache-scorer" => Scorer::Prefix {
            length_weight: given.number("matchLengthWeight"),
            length_scale: given.number("matchLengthScaleTokens"),
        },
        "no-hit-lru-scorer" => Scorer::NoHitLru,
        "lora-affinity-scorer" => Scorer::Lora,
        "context-length-aware" => Scorer::ContextLength {
            label: given.text("label").unwrap_or_default().to_owned(),
        },
        "latency-scorer" => Scorer::Latency(Headroom {
            ttft: given.number("ttftWeight"),
            tpot: given.number("tpotWeight"),
            most: given.text("headroomSelectionStrategy") == Some("most"),
        }),
        _ => return None,
    })
}

fn detector(plugin: &Plugin) -> Detector {
    let given = &plugin.parameters;
    if plugin.kind.name == "concurrency-detector" {
        let (requests, tokens) = concurrency(given);
        return Detector::Concurrency { requests, tokens };
    }
    Detector::Utilization {
        queue: given.number("queueDepthThreshold"),
        kv: given.number("kvCacheUtilThreshold"),
        staleness: given.time("metricsStalenessThreshold"),
    }
}

/// The limits on requests and on tokens that its mode asks for.
fn concurrency(given: &Parameters) -> (Option<f64>, Option<f64>) {
    let requests = Some(given.number("maxConcurrency"));
    let tokens = Some(given.number("maxTokenConcurrency"));
    match given.text("concurrencyMode") {
        Some("tokens") => (None, tokens),
        Some("hybrid") => (requests, tokens),
        _ => (requests, None),
    }
}

fn flow(config: &PickerConfig, ours: &FlowControl) -> FlowControl {
    let Some(section) = &config.flow else {
        return FlowControl {
            admission: Admission::Immediate,
            ..ours.clone()
        };
    };
    let bound = |it: u64| usize::try_from(it).unwrap_or(usize::MAX);
    let mut bands: BTreeMap<i32, Band> = BTreeMap::new();
    for (priority, section) in &section.bands {
        bands.insert(*priority, band(section));
    }
    let mut flow = FlowControl {
        admission: Admission::Queue,
        max_requests: section.max_requests.map_or(usize::MAX, bound),
        max_bytes: section.max_bytes.unwrap_or(u64::MAX),
        default_band: band(&section.default_band),
        negative_band: (section.negative_band != section.default_band)
            .then(|| band(&section.negative_band)),
        bands,
        request_ttl: section.request_ttl.unwrap_or(FOREVER),
        empty_ttl: section.empty_ttl.unwrap_or(FOREVER),
        evict_running: section.evicts,
        ..ours.clone()
    };
    ceilings(section, &mut flow);
    flow
}

fn band(section: &BandSection) -> Band {
    Band {
        max_requests: usize::try_from(section.max_requests).ok(),
        max_bytes: Some(section.max_bytes),
        fairness: Some(match section.fairness.kind.name {
            "round-robin-fairness-policy" => Fairness::RoundRobin,
            _ => Fairness::Strict,
        }),
        ordering: Some(match section.ordering.kind.name {
            "fcfs-ordering-policy" => Ordering::Fcfs,
            _ => Ordering::Deadline,
        }),
        ..Band::default()
    }
}

/// Ceilings of the bands: one for all, or between the lowest listed band and the highest by a line.
fn ceilings(section: &FlowSection, flow: &mut FlowControl) {
    let given = &section.usage_limit.parameters;
    if section.usage_limit.kind.name == "static-usage-limit-policy" {
        let ceiling = Some(given.number("threshold"));
        let others = flow.bands.values_mut().chain(&mut flow.negative_band);
        others.for_each(|band| band.ceiling = ceiling);
        flow.default_band.ceiling = ceiling;
        return;
    }
    let (least, most) = (given.number("minCeiling"), given.number("maxCeiling"));
    let by_rank = given.text("domain") != Some("value");
    // The default band stands for priority 0, whether it is listed or not.
    let listed = section.bands.iter().map(|(priority, _)| *priority);
    let mut priorities: Vec<i32> = listed.chain([0]).collect();
    priorities.sort_unstable();
    priorities.dedup();
    let ceiling = |priority: i32| {
        let (first, last) = (priorities[0], priorities[priorities.len() - 1]);
        let part = |value: f64, of: f64| if of > 0.0 { value / of } else { 1.0 };
        let share = if by_rank {
            let rank = priorities.partition_point(|&it| it < priority);
            part(rank as f64, (priorities.len() - 1) as f64)
        } else {
            let span = |to: i32| f64::from(to) - f64::from(first);
            part(span(priority), span(last))
        };
        Some(least + (most - least) * share.clamp(0.0, 1.0))
    };
    flow.default_band.ceiling = ceiling(0);
    if let Some(band) = &mut flow.negative_band {
        band.ceiling = Some(least);
    }
    for (&priority, band) in &mut flow.bands {
        band.ceiling = ceiling(priority);
    }
}

/// Settings of the prefix index that were given and change nothing: it has one block size for all and no need of caps.
fn say_of_prefixes(plugin: &Plugin) {
    const USUAL: [(&str, f64); 4] = [
        ("blockSize", 0.0),
        ("blockSizeTokens", 16.0),
        ("maxPrefixBlocksToMatch", 2048.0),
        ("maxPrefixTokensToMatch", 131_072.0),
    ];
    for (name, usual) in USUAL {
        let value = plugin.parameters.number(name);
        if value > 0.0 && value.to_bits() != usual.to_bits() {
            tracing::info!(
                "plugin {}: {name} changes nothing: blocks are 64 tokens and whole prompts are matched",
                plugin.name
            );
        }
    }
}

/// What a plugin says about servers and their metrics.
fn from_plugin(plugin: &Plugin, options: &mut FleetOptions) -> anyhow::Result<()> {
    let given = &plugin.parameters;
    match plugin.kind.name {
        "metrics-data-source" => {
            if let Some(path) = given.text("path").filter(|path| !path.is_empty()) {
                path.clone_into(&mut options.scrape.path);
            }
        }
        "model-server-protocol-metrics" => {
            let mapping = &mut options.mapping;
            for (name, source) in [
                ("queueRequestsSpec", &mut mapping.queued),
                ("runningRequestsSpec", &mut mapping.running),
                ("kvUsageSpec", &mut mapping.kv_usage),
                ("loraSpec", &mut mapping.lora),
                ("cacheInfoSpec", &mut mapping.cache_info),
            ] {
                if let Some(spec) = given.text(name).filter(|spec| !spec.is_empty()) {
                    *source = spec.parse::<MetricSource>().context(name)?;
                }
            }
        }
        "prefix-cache-scorer" | "approx-prefix-cache-producer" => {
            say_of_prefixes(plugin);
            // Of a server that does not say how large its cache is.
            if plugin.kind.name == "prefix-cache-scorer" || given.flag("autoTune") {
                return Ok(());
            }
            let blocks = given.number("lruCapacityPerServer");
            let tokens = blocks * given.number("blockSizeTokens");
            if tokens >= 1.0 {
                options.scheduling.default_kv_tokens = tokens as u64;
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

    fn applied(text: &str) -> (Named, FleetOptions) {
        let mut options = FleetOptions::default();
        let named = apply_text(&format!("{HEAD}{text}"), &mut options).unwrap();
        (named, options)
    }

    #[test]
    fn the_picker_says_how_many_servers_are_named() {
        for (text, expected) in [
            ("plugins: [{type: queue-scorer}]", 1),
            ("plugins: [{type: queue-scorer}, {type: random-picker}]", 1),
            (
                "plugins: [{type: queue-scorer}, {type: max-score-picker, parameters: {maxNumOfEndpoints: 3}}]",
                3,
            ),
        ] {
            assert_eq!(applied(text).0, Named(expected), "{text}");
        }
    }

    #[test]
    fn the_band_for_negative_priorities_is_for_all_of_them() {
        let text = "
plugins: [{type: queue-scorer}]
featureGates: [flowControl]
flowControl:
  defaultPriorityBand: {maxRequests: 2000}
  defaultNegativePriorityBand: {maxRequests: 500}
  priorityBands: [{priority: -5, maxRequests: 7}]
";
        let flow = applied(text).1.scheduling.flow;
        assert_eq!(flow.default_band.max_requests, Some(2000));
        assert_eq!(flow.negative_band.unwrap().max_requests, Some(500));
        let listed: Vec<_> = flow
            .bands
            .iter()
            .map(|(p, b)| (*p, b.max_requests))
            .collect();
        assert_eq!(listed, [(-5, Some(7))]);
        let none = applied("plugins: [{type: queue-scorer}]\nfeatureGates: [flowControl]\n");
        assert_eq!(none.1.scheduling.flow.negative_band, None);
    }
}
