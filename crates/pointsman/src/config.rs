//! Where the plan comes from: base URLs, or Kubernetes objects in files that are watched.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use http::Uri;
use routing::{BaseUrl, CompileOptions, Host, Plan};

use crate::cli::ServeArgs;

/// How long a burst of changes to files must have been quiet before it is read.
const SETTLE: Duration = Duration::from_millis(100);

/// The source of plans.
pub(crate) struct Configuration {
    origin: Origin,
    problems: Vec<String>,
    conditions: Vec<String>,
}

enum Origin {
    Urls(Arc<Plan>),
    Files(Box<Files>),
}

struct Files {
    source: files::Source,
    watch: files::Watch,
    options: CompileOptions,
    objects: Option<api::Objects>,
    told: std::collections::BTreeSet<String>,
}

impl Configuration {
    /// Reads URLs or begins to watch files.
    ///
    /// # Errors
    /// A URL that is none, or a path that is not there.
    pub(crate) fn open(args: &ServeArgs) -> anyhow::Result<Self> {
        if args.files.is_empty() {
            let urls = args
                .urls
                .iter()
                .map(|url| base_url(url))
                .collect::<anyhow::Result<Vec<_>>>()?;
            let plan = Arc::new(routing::plan_for_urls(&urls, args.listen.port()));
            return Ok(Self {
                origin: Origin::Urls(plan),
                problems: Vec::new(),
                conditions: Vec::new(),
            });
        }
        let source = files::Source::new(args.files.clone());
        let watch =
            files::watch(source.clone(), SETTLE).context("cannot watch the files given with -f")?;
        let options = CompileOptions {
            default_listen_port: args.listen.port(),
            ..CompileOptions::default()
        };
        let files = Files {
            source,
            watch,
            options,
            objects: None,
            told: std::collections::BTreeSet::new(),
        };
        Ok(Self {
            origin: Origin::Files(Box::new(files)),
            problems: Vec::new(),
            conditions: Vec::new(),
        })
    }

    /// The plan as of now. Broken objects are in [`Self::problems`] and stay at their last good state.
    pub(crate) fn load(&mut self) -> Arc<Plan> {
        match &mut self.origin {
            Origin::Urls(plan) => Arc::clone(plan),
            Origin::Files(files) => {
                let (plan, problems, conditions) = files.load();
                self.problems = problems;
                self.conditions = conditions;
                plan
            }
        }
    }

    /// What was wrong with the last load, one line each.
    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// What the objects of the last load ask for and do not get, such as references that do not resolve, one line each.
    /// These objects are sound; the load did not fail.
    pub(crate) fn conditions(&self) -> &[String] {
        &self.conditions
    }

    /// Returns when files have changed; never for URLs.
    pub(crate) async fn changed(&mut self) {
        match &mut self.origin {
            Origin::Urls(_) => std::future::pending().await,
            Origin::Files(files) => files.watch.changed().await,
        }
    }
}

impl Files {
    /// The plan, what is broken, and conditions that are not met.
    fn load(&mut self) -> (Arc<Plan>, Vec<String>, Vec<String>) {
        let loaded = match &self.objects {
            None => self.source.load(),
            Some(previous) => self.source.load_over(previous),
        };
        let compiled = routing::compile(&loaded.objects, &self.options);
        let conditions = bad_conditions(&compiled);
        self.tell(&loaded, &compiled, &conditions);
        let problems = loaded.problems.iter().map(ToString::to_string).collect();
        self.objects = Some(loaded.objects);
        (Arc::new(compiled.plan), problems, conditions)
    }

    /// Says each note, warning and bad condition once, not again at each reload.
    fn tell(
        &mut self,
        loaded: &files::Loaded,
        compiled: &routing::Compiled,
        conditions: &[String],
    ) {
        let mut once = |text: String| self.told.insert(text.clone()).then_some(text);
        for note in notes(compiled).into_iter().filter_map(&mut once) {
            tracing::info!("{note}");
        }
        for warning in loaded
            .warnings
            .iter()
            .filter_map(|warning| once(warning.to_string()))
        {
            tracing::warn!("{warning}");
        }
        for skipped in loaded
            .skipped
            .iter()
            .filter_map(|skipped| once(skipped.to_string()))
        {
            tracing::info!("{skipped}");
        }
        for condition in conditions
            .iter()
            .filter_map(|condition| once(condition.clone()))
        {
            tracing::warn!("{condition}");
        }
    }
}

/// Every condition that tells of a problem, with its object.
fn bad_conditions(compiled: &routing::Compiled) -> Vec<String> {
    let of = |status: &routing::ObjectStatus| -> Vec<String> {
        status
            .problems()
            .map(|condition| format!("{}: {condition}", status.object))
            .collect()
    };
    compiled.statuses.iter().flat_map(of).collect()
}

/// What compiling has to say that is no condition.
pub(crate) fn notes(compiled: &routing::Compiled) -> Vec<String> {
    let said = |note: &routing::Note| format!("{}: {}", note.object, note.message);
    compiled.notes.iter().map(said).collect()
}

/// Reads `http[s]://host[:port][/path]`.
fn base_url(text: &str) -> anyhow::Result<BaseUrl> {
    let way_out = "give a base URL such as http://gpu1:8000";
    if text.contains('@') {
        bail!("a base URL carries no credentials (one with `@` was given); {way_out}");
    }
    let uri: Uri = text
        .parse()
        .with_context(|| format!("{text:?} is not a URL; {way_out}"))?;
    let scheme_tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => bail!("{text:?} does not start with http:// or https://; {way_out}"),
    };
    let authority = uri
        .authority()
        .with_context(|| format!("{text:?} names no host; {way_out}"))?;
    if uri.query().is_some() {
        bail!("{text:?} has a query, which a base URL has not; {way_out}");
    }
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let host = bare
        .parse::<IpAddr>()
        .map_or_else(|_| Host::Dns(bare.to_ascii_lowercase()), Host::Ip);
    let port = authority
        .port_u16()
        .unwrap_or(if scheme_tls { 443 } else { 80 });
    let path = uri.path().trim_end_matches('/');
    // SDK users paste `…/v1`: the client's own path already says so.
    let path = path.strip_suffix("/v1").unwrap_or(path);
    Ok(BaseUrl {
        scheme_tls,
        host,
        port,
        base_path: (!path.is_empty()).then(|| path.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_read() {
        let url = base_url("https://Gpu1.example:8443/llm/v1/").unwrap();
        assert!(url.scheme_tls && url.port == 8443);
        assert_eq!(
            (url.host, url.base_path.as_deref()),
            (Host::Dns("gpu1.example".into()), Some("/llm"))
        );
        let url = base_url("http://[::1]:8000").unwrap();
        assert_eq!(
            (url.host, url.port, url.base_path),
            (Host::Ip("::1".parse().unwrap()), 8000, None)
        );
        assert_eq!(base_url("http://10.0.0.1").unwrap().port, 80);
    }

    #[test]
    fn what_is_no_base_url_is_refused_with_a_way_out() {
        for bad in [
            "gpu1:8000",
            "gpu1",
            "ftp://gpu1",
            "http://",
            "http://user:secret@gpu1",
            "http://gpu1/?a=b",
            "http://gpu 1",
            "",
        ] {
            let error = format!("{:#}", base_url(bad).unwrap_err());
            assert!(
                error.contains("http://gpu1:8000") && !error.contains("secret"),
                "{bad:?}: {error}"
            );
        }
    }
}
