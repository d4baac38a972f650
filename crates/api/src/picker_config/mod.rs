//! `EndpointPickerConfig`: which plugins an endpoint picker chooses by.
//!
//! A file, never an object of a cluster; `v1alpha1` of `inference.networking.x-k8s.io` and of `llm-d.ai` is read, and
//! read strictly, as by the Go endpoint pickers: a field that nobody knows, a name given twice, a reference that leads
//! nowhere, is an error with its place. What is left out is filled in as there. A plugin that is known there and cannot
//! be had here is refused with the reason, never taken and ignored.

mod flow;
mod nearest;
mod parameters;
mod raw;
#[cfg(test)]
mod tests;
mod types;

use std::collections::BTreeSet;

pub use self::flow::{BandSection, FlowSection};
pub use self::parameters::{Condition, Metric, Parameter, Parameters, Shape, go_duration};
pub use self::types::{PLUGIN_TYPES, PluginType, Role, Support, plugin_type};

use self::raw::{Raw, RawPlugin, RawProfile};
use crate::decode::{DecodeError, deserialize};
use crate::yaml;

/// The `apiVersion`s that are read.
pub const API_VERSIONS: [&str; 2] = [
    "inference.networking.x-k8s.io/v1alpha1",
    "llm-d.ai/v1alpha1",
];
/// Feature gates of either group.
pub const FEATURE_GATES: [&str; 4] = [
    "flowControl",
    "dataLayer",
    "prepareDataPlugins",
    "haPopulateNonLeaderDatastore",
];

/// A configuration, checked and complete.
#[derive(Clone, Debug, PartialEq)]
pub struct PickerConfig {
    /// All plugins, in their order; those that defaults add at the end.
    pub plugins: Vec<Plugin>,
    /// The plugins of the one profile, in their order. There is one picker, the last.
    pub profile: Vec<Placed>,
    /// Flow control, if its gate is on.
    pub flow: Option<FlowSection>,
    /// The saturation detector.
    pub detector: Plugin,
    /// What is taken and changes nothing, a line each.
    pub notes: Vec<String>,
}

/// One plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugin {
    /// Its name: that of its type, if it was not given one.
    pub name: String,
    /// Its type.
    pub kind: &'static PluginType,
    /// Its parameters.
    pub parameters: Parameters,
}

/// A plugin as a profile has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// The plugin.
    pub plugin: Plugin,
    /// The weight of a scorer.
    pub weight: f64,
}

impl PickerConfig {
    /// Reads a configuration from YAML or JSON.
    ///
    /// # Errors
    /// Text that is not YAML, or the first field that is wrong, with its place.
    pub fn read(text: &str) -> Result<Self, DecodeError> {
        let mut documents = yaml::parse(text).into_iter();
        let Some(first) = documents.next() else {
            return Err(DecodeError::field("", "the configuration is empty"));
        };
        let (value, marks) = first.result.map_err(|error| DecodeError::Syntax {
            position: error.position,
            message: error.message,
        })?;
        if let Some(second) = documents.next() {
            let message = format!(
                "one configuration is expected; another begins in line {}",
                second.line
            );
            return Err(DecodeError::field("", message));
        }
        check_version(&value)
            .and_then(|()| deserialize::<Raw>(&value, false))
            .and_then(build)
            .map_err(|error| with_hint(error).located(&marks))
    }

    /// The plugin of that name.
    #[must_use]
    pub fn plugin(&self, name: &str) -> Option<&Plugin> {
        self.plugins.iter().find(|it| it.name == name)
    }
}

/// Before all else: a configuration of another version has other fields.
fn check_version(value: &serde_json::Value) -> Result<(), DecodeError> {
    let text = |field: &str| {
        let found = value.get(field).and_then(serde_json::Value::as_str);
        found.ok_or_else(|| {
            DecodeError::field(
                field,
                "an EndpointPickerConfig has this field, and its value is a text",
            )
        })
    };
    let (version, kind) = (text("apiVersion")?, text("kind")?);
    if !API_VERSIONS.contains(&version) {
        let message = format!("{version} is not read; write {}", API_VERSIONS.join(" or "));
        return Err(DecodeError::field("apiVersion", message));
    }
    if kind != "EndpointPickerConfig" {
        let message = format!("EndpointPickerConfig is expected, this is {kind}");
        return Err(DecodeError::field("kind", message));
    }
    Ok(())
}

/// An unknown field gets the name that may have been meant.
fn with_hint(error: DecodeError) -> DecodeError {
    let DecodeError::Field {
        position,
        path,
        message,
    } = error
    else {
        return error;
    };
    let field = message
        .strip_prefix("found unknown field ")
        .and_then(|rest| rest.split_once(", expected "));
    let message = match field {
        None => message,
        Some((field, known)) => {
            let names = known.split(|c: char| !c.is_ascii_alphanumeric());
            let names = names.filter(|name| !matches!(*name, "" | "one" | "of" | "or"));
            format!(
                "there is no field {field} here{}",
                nearest::hint(field, names)
            )
        }
    };
    DecodeError::Field {
        position,
        path,
        message,
    }
}

fn build(raw: Raw) -> Result<PickerConfig, DecodeError> {
    let gates = gates(&raw.feature_gates)?;
    let mut builder = Builder {
        plugins: plugins(&raw.plugins)?,
        notes: Vec::new(),
    };
    builder.references(&raw.plugins)?;
    builder.handlers(&raw)?;
    let profile = builder.profile(&raw.scheduling_profiles)?;
    builder.data_layer(&raw)?;
    let detector = builder.detector(&raw)?;
    let flow = builder.flow(&raw, gates.contains("flowControl"))?;
    for plugin in &builder.plugins {
        if plugin.kind.support == Support::Anyway {
            let note = format!("plugin {}: what it asks for is done anyway", plugin.name);
            builder.notes.push(note);
        }
    }
    Ok(PickerConfig {
        plugins: builder.plugins,
        profile,
        flow,
        detector,
        notes: builder.notes,
    })
}

fn gates(given: &[String]) -> Result<BTreeSet<&str>, DecodeError> {
    for (at, gate) in given.iter().enumerate() {
        if !FEATURE_GATES.contains(&gate.as_str()) {
            let hint = nearest::hint(gate, FEATURE_GATES.into_iter());
            let message = format!("there is no feature gate {gate:?}{hint}");
            return Err(DecodeError::field(format!("featureGates[{at}]"), message));
        }
    }
    Ok(given.iter().map(String::as_str).collect())
}

/// The plugins, each checked by itself.
fn plugins(given: &[RawPlugin]) -> Result<Vec<Plugin>, DecodeError> {
    let mut plugins: Vec<Plugin> = Vec::new();
    for (at, raw) in given.iter().enumerate() {
        let path = format!("plugins[{at}]");
        let Some(kind) = plugin_type(&raw.plugin_type) else {
            let names = PLUGIN_TYPES.iter().map(|it| it.name);
            let hint = nearest::hint(&raw.plugin_type, names);
            let message = format!("there is no plugin type {:?}{hint}", raw.plugin_type);
            return Err(DecodeError::field(format!("{path}.type"), message));
        };
        if let Support::Refused(reason) = kind.support {
            let message = format!("{} is not supported: {reason}", kind.name);
            return Err(DecodeError::field(format!("{path}.type"), message));
        }
        let given = raw.name.as_deref().filter(|name| !name.is_empty());
        let name = given.unwrap_or(kind.name).to_owned();
        if plugins.iter().any(|it| it.name == name) {
            let message = format!("two plugins are called {name}; give one another name");
            let field = if given.is_some() { "name" } else { "type" };
            return Err(DecodeError::field(format!("{path}.{field}"), message));
        }
        let parameters = Parameters::read(
            kind.parameters,
            raw.parameters.as_ref(),
            &format!("{path}.parameters"),
        )?;
        plugins.push(Plugin {
            name,
            kind,
            parameters,
        });
    }
    Ok(plugins)
}

/// A configuration that is coming to be.
struct Builder {
    plugins: Vec<Plugin>,
    notes: Vec<String>,
}

impl Builder {
    /// The plugin that is referred to, of one of these roles.
    fn find(&self, name: &str, roles: &[Role], path: &str) -> Result<&Plugin, DecodeError> {
        let Some(plugin) = self.plugins.iter().find(|it| it.name == name) else {
            let names = self.plugins.iter().map(|it| it.name.as_str());
            let hint = nearest::hint(name, names);
            let message = format!("no plugin is called {name:?}{hint}");
            return Err(DecodeError::field(path, message));
        };
        if !roles.contains(&plugin.kind.role) {
            let wanted: Vec<&str> = roles.iter().map(|role| role.phrase()).collect();
            let message = format!(
                "{name} is {}; here {} is expected",
                plugin.kind.role.phrase(),
                wanted.join(" or ")
            );
            return Err(DecodeError::field(path, message));
        }
        Ok(plugin)
    }

    /// A plugin that may be referred to without being listed: then it is added with its defaults.
    fn find_or_add(
        &mut self,
        name: &str,
        roles: &[Role],
        path: &str,
    ) -> Result<Plugin, DecodeError> {
        let listed = self.plugins.iter().any(|it| it.name == name);
        if let (false, Some(kind)) = (listed, plugin_type(name)) {
            if let Support::Refused(reason) = kind.support {
                let message = format!("{name} is not supported: {reason}");
                return Err(DecodeError::field(path, message));
            }
            let parameters = Parameters::read(kind.parameters, None, path)?;
            self.plugins.push(Plugin {
                name: name.to_owned(),
                kind,
                parameters,
            });
        }
        self.find(name, roles, path).cloned()
    }

    /// Plugins that name others in their parameters: those must be there, and must not lead back.
    fn references(&self, given: &[RawPlugin]) -> Result<(), DecodeError> {
        let mut edges: Vec<(usize, usize, String)> = Vec::new();
        for (at, plugin) in self.plugins.iter().enumerate().take(given.len()) {
            let of_plugins = plugin.kind.parameters.iter();
            for parameter in of_plugins.filter(|it| it.shape == Shape::Reference) {
                let name = plugin.parameters.text(parameter.name).unwrap_or_default();
                let path = format!("plugins[{at}].parameters.{}", parameter.name);
                // Producers that are not listed are there by default.
                let by_default = plugin_type(name).is_some_and(|it| it.role == Role::Producer);
                match self.plugins.iter().position(|it| it.name == name) {
                    Some(to) => {
                        self.find(name, &[Role::Producer], &path)?;
                        edges.push((at, to, path));
                    }
                    None if name.is_empty() => {}
                    None if by_default => {
                        if let Some(Support::Refused(reason)) =
                            plugin_type(name).map(|it| it.support)
                        {
                            let message = format!("{name} is not supported: {reason}");
                            return Err(DecodeError::field(path, message));
                        }
                    }
                    None => self.find(name, &[Role::Producer], &path).map(drop)?,
                }
            }
        }
        cycle(&edges, self.plugins.len())
    }

    fn handlers(&self, raw: &Raw) -> Result<(), DecodeError> {
        let is_handler = |plugin: &Plugin| plugin.kind.role == Role::ProfileHandler;
        let mut handlers = (0..self.plugins.len()).filter(|&at| is_handler(&self.plugins[at]));
        if let (Some(first), Some(second)) = (handlers.next(), handlers.next()) {
            let message = format!(
                "there are two profile handlers, this one and {}; keep one",
                self.plugins[first].name
            );
            return Err(DecodeError::field(
                format!("plugins[{second}].type"),
                message,
            ));
        }
        if raw.scheduling_profiles.len() > 1 {
            return Err(DecodeError::field(
                "schedulingProfiles",
                "single-profile-handler runs exactly one profile; there are several",
            ));
        }
        Ok(())
    }

    fn profile(&mut self, given: &[RawProfile]) -> Result<Vec<Placed>, DecodeError> {
        let mut placed = match given.first() {
            // Without any, one profile has all that could be in one.
            None => self
                .plugins
                .iter()
                .filter(|it| it.kind.role.in_profile() && it.kind.role != Role::Detector)
                .map(|plugin| Placed {
                    plugin: plugin.clone(),
                    weight: 1.0,
                })
                .collect(),
            Some(profile) => self.placed(profile)?,
        };
        let is_picker = |it: &Placed| it.plugin.kind.role == Role::Picker;
        if placed.iter().filter(|it| is_picker(it)).count() > 1 {
            let path = if given.is_empty() {
                "plugins"
            } else {
                "schedulingProfiles[0].plugins"
            };
            return Err(DecodeError::field(
                path,
                "a profile has one picker; there are several",
            ));
        }
        if !placed.iter().any(is_picker) {
            let plugin =
                self.find_or_add("max-score-picker", &[Role::Picker], "schedulingProfiles")?;
            placed.push(Placed {
                plugin,
                weight: 1.0,
            });
        }
        Ok(placed)
    }

    fn placed(&self, profile: &RawProfile) -> Result<Vec<Placed>, DecodeError> {
        const ROLES: [Role; 4] = [Role::Filter, Role::Scorer, Role::Picker, Role::Detector];
        let mut placed = Vec::new();
        for (at, item) in profile.plugins.iter().enumerate() {
            let path = format!("schedulingProfiles[0].plugins[{at}]");
            let plugin = self.find(&item.plugin_ref, &ROLES, &format!("{path}.pluginRef"))?;
            let weight = item.weight.unwrap_or(1.0);
            if !weight.is_finite() || weight < 0.0 {
                let message = "a number from 0 up is expected";
                return Err(DecodeError::field(format!("{path}.weight"), message));
            }
            placed.push(Placed {
                plugin: plugin.clone(),
                weight,
            });
        }
        Ok(placed)
    }

    /// What is read from servers and requests is known by itself; references must lead somewhere all the same.
    fn data_layer(&mut self, raw: &Raw) -> Result<(), DecodeError> {
        let layer = raw.data_layer.as_ref().or(raw.data.as_ref());
        let name = if raw.data_layer.is_some() {
            "dataLayer"
        } else {
            "data"
        };
        if let Some(layer) = layer {
            for (refused, field) in [
                (layer.discovery.is_some(), "discovery"),
                (layer.peer_discovery.is_some(), "peerDiscovery"),
                (
                    layer.cross_replica_syncer_plugin_ref.is_some(),
                    "crossReplicaSyncerPluginRef",
                ),
            ] {
                if refused {
                    let message = "not supported: servers come from the pool, and copies of a picker do not talk here";
                    return Err(DecodeError::field(format!("{name}.{field}"), message));
                }
            }
            for (at, source) in layer.sources.iter().enumerate() {
                let path = format!("{name}.sources[{at}]");
                let at_ref = format!("{path}.pluginRef");
                self.find_or_add(&source.plugin_ref, &[Role::DataSource], &at_ref)?;
                for (at, extractor) in source.extractors.iter().enumerate() {
                    let at_ref = format!("{path}.extractors[{at}].pluginRef");
                    self.find_or_add(&extractor.plugin_ref, &[Role::Extractor], &at_ref)?;
                }
            }
        }
        let mut parsers: Vec<(String, &str)> = Vec::new();
        if let Some(parser) = &raw.parser {
            parsers.push(("parser.pluginRef".to_owned(), &parser.plugin_ref));
        }
        for (at, parser) in raw
            .request_handler
            .iter()
            .flat_map(|it| &it.parsers)
            .enumerate()
        {
            let path = format!("requestHandler.parsers[{at}].pluginRef");
            parsers.push((path, &parser.plugin_ref));
        }
        for (path, name) in parsers {
            self.find_or_add(name, &[Role::Parser], &path)?;
        }
        Ok(())
    }

    fn detector(&mut self, raw: &Raw) -> Result<Plugin, DecodeError> {
        const DEFAULT: &str = "utilization-detector";
        let of_flow = raw.flow_control.as_ref();
        let of_flow = of_flow.and_then(|it| it.saturation_detector.as_ref());
        let (section, path) = match (of_flow, &raw.saturation_detector) {
            (Some(_), Some(_)) => {
                let message = "flowControl.saturationDetector is given, too; keep that one";
                return Err(DecodeError::field("saturationDetector", message));
            }
            (Some(section), None) => (section, "flowControl.saturationDetector"),
            (None, Some(section)) => (section, "saturationDetector"),
            (None, None) => {
                let mut listed = self.plugins.iter();
                let listed = listed.find(|it| it.kind.role == Role::Detector);
                if let Some(plugin) = listed {
                    return Ok(plugin.clone());
                }
                return self.find_or_add(DEFAULT, &[Role::Detector], "");
            }
        };
        if let Some(name) = &section.plugin_ref {
            if section.thresholds().is_some() {
                let message = "thresholds belong to the plugin that pluginRef names";
                return Err(DecodeError::field(path, message));
            }
            return self.find_or_add(name, &[Role::Detector], &format!("{path}.pluginRef"));
        }
        let kind = plugin_type(DEFAULT).ok_or_else(|| DecodeError::field(path, "no detector"))?;
        let given = section.thresholds();
        Ok(Plugin {
            name: DEFAULT.to_owned(),
            kind,
            parameters: Parameters::read(kind.parameters, given.as_ref(), path)?,
        })
    }
}

/// Looks for plugins that refer to each other in a circle.
fn cycle(edges: &[(usize, usize, String)], plugins: usize) -> Result<(), DecodeError> {
    // What nobody is waited for by is taken away until nothing changes: what is left is in or behind a circle.
    let mut left: Vec<bool> = vec![true; plugins];
    loop {
        let waits = |at: usize| edges.iter().any(|(from, to, _)| *from == at && left[*to]);
        let free: Vec<usize> = (0..plugins).filter(|&at| left[at] && !waits(at)).collect();
        if free.is_empty() {
            break;
        }
        for at in free {
            left[at] = false;
        }
    }
    match edges.iter().find(|(from, to, _)| left[*from] && left[*to]) {
        None => Ok(()),
        Some((_, _, path)) => Err(DecodeError::field(
            path.clone(),
            "plugins refer to each other in a circle through this one",
        )),
    }
}
