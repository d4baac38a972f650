//! A plan without Kubernetes objects: a few base URLs, and every request goes to one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::plan::{
    AppProtocol, Backend, EndpointSpec, Host, Listener, Match, Picker, Plan, PoolKey, PoolKind,
    PoolSpec, PortPlan, RoutePolicy, Rule, Target, UpstreamTls, Verify,
};

/// One base URL of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    /// `https`.
    pub scheme_tls: bool,
    /// Host.
    pub host: Host,
    /// Port, the scheme's own where the URL has none.
    pub port: u16,
    /// Path put before each request's path.
    pub base_path: Option<String>,
}

/// One pool of all URLs behind one plain HTTP port, for every host and path.
///
/// A pool either speaks TLS to its servers or not. URLs of both schemes make two pools that share the traffic by their
/// numbers of URLs.
pub fn plan_for_urls(urls: &[BaseUrl], listen_port: u16) -> Plan {
    let pools: Vec<_> = [false, true]
        .into_iter()
        .filter_map(|tls| pool(urls, tls))
        .collect();
    let backends = pools.iter().map(|pool| Backend {
        weight: u32::try_from(pool.endpoints.len()).unwrap_or(u32::MAX),
        target: Target::ByModel(Arc::from([pool.key.clone()])),
        filters: Vec::new(),
    });
    let rule = catch_all("urls", backends.collect());
    Plan {
        ports: BTreeMap::from([(listen_port, open_port(listen_port, "urls", rule))]),
        pools: pools
            .into_iter()
            .map(|pool| (pool.key.clone(), Arc::new(pool)))
            .collect(),
    }
}

/// A rule for every request.
pub(crate) fn catch_all(name: &str, backends: Vec<Backend>) -> Rule {
    Rule {
        route: name.to_owned(),
        name: None,
        hostnames: Vec::new(),
        matches: Match::any(),
        filters: Vec::new(),
        backends,
        policy: RoutePolicy::default(),
    }
}

/// A plain HTTP port with one rule for every host.
pub(crate) fn open_port(port: u16, name: &str, rule: Rule) -> PortPlan {
    let listener = Listener {
        name: name.to_owned(),
        rules: vec![Arc::new(rule)],
        ..Listener::default()
    };
    PortPlan {
        port,
        tls: false,
        listeners: vec![listener],
    }
}

fn pool(urls: &[BaseUrl], tls: bool) -> Option<PoolSpec> {
    let endpoints: BTreeSet<_> = urls
        .iter()
        .filter(|url| url.scheme_tls == tls)
        .map(endpoint)
        .collect();
    let name = if tls { "https" } else { "http" };
    (!endpoints.is_empty()).then(|| PoolSpec {
        key: PoolKey {
            kind: PoolKind::Urls,
            namespace: "urls".to_owned(),
            name: name.to_owned(),
        },
        endpoints: endpoints.into_iter().collect(),
        protocol: AppProtocol::Http,
        tls: tls.then_some(UpstreamTls {
            server_name: None,
            verify: Verify::System,
            ..UpstreamTls::default()
        }),
        picker: Picker::Inside,
        models: Arc::default(),
    })
}

fn endpoint(url: &BaseUrl) -> EndpointSpec {
    let base_path = url
        .base_path
        .as_deref()
        .map(|path| path.trim_end_matches('/'))
        .filter(|path| !path.is_empty());
    EndpointSpec {
        host: url.host.clone(),
        port: url.port,
        name: endpoint_name(&url.host, url.port),
        ready: true,
        base_path: base_path.map(str::to_owned),
        labels: Arc::default(),
    }
}

/// `host:port`, with brackets round an IPv6 address.
pub(crate) fn endpoint_name(host: &Host, port: u16) -> String {
    match host {
        Host::Ip(ip) => std::net::SocketAddr::new(*ip, port).to_string(),
        Host::Dns(name) => format!("{name}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestHead;

    fn url(tls: bool, host: &str, port: u16, base: Option<&str>) -> BaseUrl {
        let host = host
            .parse()
            .map_or_else(|_| Host::Dns(host.to_owned()), Host::Ip);
        BaseUrl {
            scheme_tls: tls,
            host,
            port,
            base_path: base.map(str::to_owned),
        }
    }

    #[test]
    fn urls_are_sorted_and_counted_once() {
        let urls = [
            url(false, "10.0.0.2", 80, None),
            url(false, "gpu1", 8000, Some("/x/")),
            url(false, "10.0.0.2", 80, Some("/")),
        ];
        let plan = plan_for_urls(&urls, 8080);
        let pool = plan.pools.values().next().expect("one pool");
        let names: Vec<_> = pool
            .endpoints
            .iter()
            .map(|e| (e.name.as_str(), e.base_path.as_deref()))
            .collect();
        assert_eq!(names, [("10.0.0.2:80", None), ("gpu1:8000", Some("/x"))]);
        assert_eq!(pool.tls, None);
        assert_eq!(
            endpoint_name(&Host::Ip("::1".parse().expect("ip")), 5),
            "[::1]:5"
        );
    }

    #[test]
    fn any_request_finds_the_pool() {
        let plan = plan_for_urls(&[url(false, "gpu1", 8000, None)], 8080);
        let (method, headers) = (http::Method::POST, http::HeaderMap::new());
        let head = RequestHead {
            method: &method,
            host: "whatever",
            path: "*",
            query: None,
            headers: &headers,
            sni: None,
        };
        let matched = plan.route(8080, &head).expect("a rule");
        let key = plan.pools.keys().next().expect("a pool").clone();
        assert_eq!(
            matched.rule.choose(0.3).map(|b| &b.target),
            Some(&Target::ByModel(Arc::from([key])))
        );
    }

    #[test]
    fn both_schemes_share_by_number() {
        let urls = [
            url(false, "a", 80, None),
            url(false, "b", 80, None),
            url(true, "c", 443, None),
        ];
        let plan = plan_for_urls(&urls, 1);
        let weights: Vec<_> = plan.ports[&1].listeners[0].rules[0]
            .backends
            .iter()
            .map(|b| b.weight)
            .collect();
        assert_eq!(weights, [2, 1]);
        assert_eq!(plan.pools.values().filter(|p| p.tls.is_some()).count(), 1);
    }
}
