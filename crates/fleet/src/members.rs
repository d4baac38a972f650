//! The address book of a pool, kept equal to what the plan and DNS say.
//!
//! A server is its address, path prefix and name. One that stays keeps everything the core knows about it; one that is
//! no longer ready drains; one that is no longer named leaves. If only the way to speak to it changed (protocol, TLS,
//! authority), the core keeps its state, while everybody else sees a new [`Endpoint`], so that old connections are not
//! used for it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use routing::{AppProtocol, EndpointSpec, Host, PoolSpec};
use rustc_hash::FxHashMap;
use scheduling::policy::profile::Labels;
use scheduling::{EndpointId, EndpointProfile, Event};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::catalog::{Catalog, Listing};
use crate::endpoint::{Seen, Wishes};
use crate::{ClientTls, Endpoint, Error, Pool, watch};

/// Longest wait for an answer from DNS.
const LOOKUP: Duration = Duration::from_secs(5);
/// How long a server outside the plan stays after a picker named it for the last time.
const STRANGER_STAYS: Duration = Duration::from_secs(60);
/// Most servers outside the plan at once.
const MOST_STRANGERS: usize = 256;
/// Longest wait for a loopback connection.
const LOOPBACK: Duration = Duration::from_millis(250);

/// Servers by all the names they are asked for.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    endpoints: Vec<Arc<Endpoint>>,
    by_token: FxHashMap<u64, usize>,
}

impl Roster {
    fn new(endpoints: Vec<Arc<Endpoint>>) -> Self {
        let by_token = endpoints
            .iter()
            .enumerate()
            .map(|(at, endpoint)| (endpoint.token(), at))
            .collect();
        Self {
            endpoints,
            by_token,
        }
    }

    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    pub(crate) fn by_token(&self, token: u64) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(*self.by_token.get(&token)?)
    }
}

/// What is kept between two reconciliations.
#[derive(Debug, Default)]
pub(crate) struct Members {
    list: Vec<Member>,
    resolved: FxHashMap<(String, u16), Vec<IpAddr>>,
    resolver: Option<AbortHandle>,
    /// Servers outside the plan, and when a picker last named them.
    strangers: Vec<(SocketAddr, Instant)>,
    closed: bool,
}

#[derive(Debug)]
struct Member {
    endpoint: Arc<Endpoint>,
    labels: Arc<Labels>,
    ready: bool,
    listing: Listing,
    watcher: AbortHandle,
}

/// A server that should be there.
#[derive(Debug)]
struct Wanted {
    address: SocketAddr,
    name: Arc<str>,
    authority: String,
    base_path: Option<String>,
    protocol: AppProtocol,
    tls: Option<ClientTls>,
    labels: Arc<Labels>,
    ready: bool,
    /// It is there because a picker named it: nobody else sends it anything.
    stranger: bool,
}

impl Wanted {
    fn same_server(&self, endpoint: &Endpoint) -> bool {
        self.address == endpoint.address
            && self.base_path == endpoint.base_path
            && self.name == endpoint.name
    }

    fn same_way(&self, endpoint: &Endpoint) -> bool {
        let tls = match (&self.tls, &endpoint.tls) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a.config(), b.config()) && a.name() == b.name(),
            _ => false,
        };
        tls && self.authority == endpoint.authority && self.protocol == endpoint.protocol
    }

    fn into_endpoint(self, pool: &Pool, id: EndpointId) -> Arc<Endpoint> {
        Arc::new(Endpoint {
            id,
            uid: pool.shared.uids.fetch_add(1, Ordering::Relaxed),
            name: self.name,
            address: self.address,
            authority: self.authority,
            protocol: self.protocol,
            tls: self.tls.map(Arc::new),
            base_path: self.base_path,
            gone: AtomicBool::new(false),
            tried: AtomicBool::new(false),
            wishes: Wishes::default(),
            silent: tokio::sync::watch::Sender::new(false),
            seen: Mutex::new(Seen::default()),
        })
    }
}

impl Pool {
    /// Starts the background work of a new pool.
    pub(crate) fn start(self: &Arc<Self>) {
        tokio::spawn(self.clone().run_timer());
        self.follow_names(&self.spec());
        self.reconcile();
    }

    /// Takes a new version of the pool.
    pub(crate) fn update(self: &Arc<Self>, spec: &Arc<PoolSpec>) {
        let old = self.spec.swap(spec.clone());
        if *old == **spec {
            return;
        }
        if names(&old) != names(spec) {
            self.follow_names(spec);
        }
        self.reconcile();
    }

    /// Every server leaves. Leases go on; those who wait get their answer.
    pub(crate) fn close(&self) {
        let mut members = self.members.lock();
        members.closed = true;
        if let Some(resolver) = members.resolver.take() {
            resolver.abort();
        }
        for member in std::mem::take(&mut members.list) {
            self.leave(&member);
        }
        self.publish(&members);
        drop(members);
        self.close_core();
    }

    /// A server answered, or did not, when asked for its models.
    pub(crate) fn listed(&self, endpoint: &Endpoint, listing: Listing) {
        let mut members = self.members.lock();
        let Some(member) = members
            .list
            .iter_mut()
            .find(|member| member.endpoint.uid == endpoint.uid)
        else {
            return;
        };
        if !member.listing.says_the_same(&listing) {
            if let Listing::Models(list, _) = &listing {
                for model in list.iter() {
                    self.shared.metrics.expect_model(&model.id, &model.id);
                }
                endpoint.seen.lock().models = list.iter().map(|model| model.id.clone()).collect();
            }
            member.listing = listing;
            self.publish(&members);
        }
    }

    /// Whether every server was asked once.
    pub(crate) fn all_tried(&self) -> bool {
        self.resolved.load(Ordering::Acquire)
            && self
                .roster
                .load()
                .endpoints()
                .iter()
                .all(|endpoint| endpoint.tried.load(Ordering::Acquire))
    }

    /// The server at this address, in the pool or not. One that is not joins, drained: nobody but who names it sends it
    /// anything. It leaves a minute after it was named for the last time.
    ///
    /// `None`: there is no such server, and there are as many strangers as are allowed.
    pub fn admit(self: &Arc<Self>, address: SocketAddr) -> Option<Arc<Endpoint>> {
        let mut members = self.members.lock();
        let now = Instant::now();
        let known = self.endpoint_at(address);
        let strangers = &mut members.strangers;
        if let Some(it) = strangers.iter_mut().find(|it| it.0 == address) {
            it.1 = now;
        } else if known.is_none() {
            strangers.retain(|(_, named)| now - *named < STRANGER_STAYS);
            if strangers.len() >= MOST_STRANGERS {
                return None;
            }
            strangers.push((address, now));
            tracing::info!(pool = %self.label, %address, "a picker names a server outside the pool");
        }
        drop(members);
        known.or_else(|| {
            self.reconcile();
            self.endpoint_at(address)
        })
    }

    /// Brings the address book in line with the spec and the last answers from DNS.
    fn reconcile(self: &Arc<Self>) {
        let mut members = self.members.lock();
        if members.closed {
            return;
        }
        let wanted = self.wanted(&members);
        let (stay, leave): (Vec<Member>, Vec<Member>) = std::mem::take(&mut members.list)
            .into_iter()
            .partition(|member| {
                wanted
                    .iter()
                    .any(|wanted| wanted.same_server(&member.endpoint))
            });
        leave.iter().for_each(|member| self.leave(member));
        members.list = stay;
        for wanted in wanted {
            match members
                .list
                .iter_mut()
                .find(|member| wanted.same_server(&member.endpoint))
            {
                Some(member) => {
                    self.relabel(member, &wanted.labels);
                    self.keep(member, wanted);
                }
                // One that is not ready has nothing of ours to finish.
                None if !wanted.ready && !wanted.stranger => {}
                None => {
                    let drained = wanted.stranger;
                    let mut member = self.join(wanted);
                    if drained {
                        self.drain_member(&mut member, true);
                    }
                    members.list.push(member);
                }
            }
        }
        self.publish(&members);
    }

    fn relabel(&self, member: &mut Member, labels: &Arc<Labels>) {
        if member.labels == *labels {
            return;
        }
        member.labels = Arc::clone(labels);
        let id = member.endpoint.id;
        self.with_core(|core, _| core.pool.label(id, labels));
    }

    fn join(self: &Arc<Self>, wanted: Wanted) -> Member {
        let profile = EndpointProfile {
            load_only: self.load_only(),
            ..EndpointProfile::default()
        };
        let labels = Arc::clone(&wanted.labels);
        let endpoint = self.with_core(|core, now| {
            let id = core.pool.join(now, profile);
            core.pool.label(id, &labels);
            let endpoint = wanted.into_endpoint(self, id);
            if core.book.len() <= id.index() {
                core.book.resize(id.index() + 1, None);
            }
            core.book[id.index()] = Some(endpoint.clone());
            endpoint
        });
        tracing::debug!(pool = %self.label, endpoint = %endpoint.name, address = %endpoint.address, "server joined");
        let watcher = watch::spawn(self, &endpoint);
        Member {
            endpoint,
            labels,
            ready: true,
            listing: Listing::Unknown,
            watcher,
        }
    }

    fn keep(self: &Arc<Self>, member: &mut Member, wanted: Wanted) {
        if member.ready != wanted.ready {
            self.drain_member(member, !wanted.ready);
        }
        if !wanted.same_way(&member.endpoint) {
            let endpoint = wanted.into_endpoint(self, member.endpoint.id);
            self.with_core(|core, _| core.book[endpoint.id.index()] = Some(endpoint.clone()));
            member.watcher.abort();
            member.endpoint.gone.store(true, Ordering::Release);
            member.watcher = watch::spawn(self, &endpoint);
            member.endpoint = endpoint;
        }
    }

    fn drain_member(&self, member: &mut Member, draining: bool) {
        member.ready = !draining;
        self.observe(Event::Draining {
            endpoint: member.endpoint.id,
            draining,
        });
    }

    fn leave(&self, member: &Member) {
        member.watcher.abort();
        member.endpoint.gone.store(true, Ordering::Release);
        let id = member.endpoint.id;
        self.with_core(|core, now| {
            core.pool.observe(now, Event::Left { endpoint: id });
            core.book[id.index()] = None;
        });
        tracing::debug!(pool = %self.label, endpoint = %member.endpoint.name, "server left");
    }

    fn publish(&self, members: &Members) {
        let endpoints = members
            .list
            .iter()
            .map(|member| member.endpoint.clone())
            .collect();
        self.roster.store(Arc::new(Roster::new(endpoints)));
        let listings = members
            .list
            .iter()
            .map(|member| (member.endpoint.id, &member.listing));
        self.catalog.store(Arc::new(Catalog::new(listings)));
        self.shared.tried.notify_waiters();
    }

    /// The servers that should be there now.
    fn wanted(&self, members: &Members) -> Vec<Wanted> {
        let resolved = &members.resolved;
        let spec = self.spec();
        let mut wanted: Vec<Wanted> = Vec::new();
        for endpoint in &spec.endpoints {
            let addresses = match &endpoint.host {
                Host::Ip(ip) => vec![*ip],
                Host::Dns(name) => resolved
                    .get(&(name.clone(), endpoint.port))
                    .cloned()
                    .unwrap_or_default(),
            };
            for ip in &addresses {
                match self.want(&spec, endpoint, *ip, addresses.len() > 1) {
                    Ok(one) => {
                        if !wanted
                            .iter()
                            .any(|w| w.address == one.address && w.base_path == one.base_path)
                        {
                            wanted.push(one);
                        }
                    }
                    Err(error) => {
                        tracing::error!(pool = %self.label, endpoint = %endpoint.name, %error, "server cannot be used");
                    }
                }
            }
        }
        for (address, _) in &members.strangers {
            if wanted.iter().any(|it| it.address == *address) {
                continue;
            }
            let endpoint = stranger(*address);
            match self.want(&spec, &endpoint, address.ip(), false) {
                Ok(one) => wanted.push(Wanted {
                    stranger: true,
                    ..one
                }),
                Err(error) => {
                    tracing::error!(pool = %self.label, %address, %error, "server cannot be used");
                }
            }
        }
        wanted
    }

    fn want(
        &self,
        spec: &PoolSpec,
        endpoint: &EndpointSpec,
        ip: IpAddr,
        several: bool,
    ) -> Result<Wanted, Error> {
        let host = match &endpoint.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Dns(name) => name.clone(),
        };
        let tls = match &spec.tls {
            Some(tls) => Some(self.shared.tls.client(tls, spec.protocol, &host)?),
            None => None,
        };
        let name = if several {
            format!("{}@{ip}", endpoint.name)
        } else {
            endpoint.name.clone()
        };
        Ok(Wanted {
            address: SocketAddr::new(ip, endpoint.port),
            name: name.into(),
            authority: authority(&host, endpoint.port, tls.is_some()),
            base_path: endpoint.base_path.clone(),
            protocol: spec.protocol,
            tls,
            labels: Arc::clone(&endpoint.labels),
            ready: endpoint.ready,
            stranger: false,
        })
    }

    /// Starts to follow the spec's DNS names, or stops if it has none.
    fn follow_names(self: &Arc<Self>, spec: &PoolSpec) {
        let names = names(spec);
        let mut members = self.members.lock();
        if let Some(resolver) = members.resolver.take() {
            resolver.abort();
        }
        self.resolved.store(names.is_empty(), Ordering::Release);
        if !names.is_empty() {
            members.resolver = Some(tokio::spawn(self.clone().resolve_names(names)).abort_handle());
        }
    }

    async fn resolve_names(self: Arc<Self>, names: Vec<(String, u16)>) {
        let mut failing: Vec<&str> = Vec::new();
        loop {
            for (host, port) in &names {
                match resolve(host, *port).await {
                    Ok(addresses) => {
                        failing.retain(|name| name != host);
                        self.members
                            .lock()
                            .resolved
                            .insert((host.clone(), *port), addresses);
                    }
                    // The last answer is better than none. It is said once.
                    Err(error) if !failing.contains(&host.as_str()) => {
                        failing.push(host);
                        tracing::warn!(pool = %self.label, host, %error, "host name does not resolve");
                    }
                    Err(_) => {}
                }
            }
            self.reconcile();
            if !self.resolved.swap(true, Ordering::AcqRel) {
                self.shared.tried.notify_waiters();
            }
            tokio::time::sleep(self.shared.options.dns_refresh).await;
        }
    }
}

/// A server that is known by nothing but its address.
fn stranger(address: SocketAddr) -> EndpointSpec {
    EndpointSpec {
        host: Host::Ip(address.ip()),
        port: address.port(),
        name: address.to_string(),
        ready: false,
        labels: Arc::default(),
        base_path: None,
    }
}

/// The DNS names of a spec.
fn names(spec: &PoolSpec) -> Vec<(String, u16)> {
    let name = |endpoint: &EndpointSpec| match &endpoint.host {
        Host::Dns(name) => Some((name.clone(), endpoint.port)),
        Host::Ip(_) => None,
    };
    let mut names: Vec<_> = spec.endpoints.iter().filter_map(name).collect();
    names.sort();
    names.dedup();
    names
}

/// The addresses of a name, sorted. Several loopback addresses are one machine, and the server listens on one of them:
/// the first that takes a connection is taken.
async fn resolve(host: &str, port: u16) -> Result<Vec<IpAddr>, std::io::Error> {
    let found = timeout(LOOKUP, lookup_host((host, port))).await??;
    let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    addresses.sort();
    addresses.dedup();
    if addresses.len() > 1 && addresses.iter().all(IpAddr::is_loopback) {
        for ip in &addresses {
            if matches!(
                timeout(LOOPBACK, TcpStream::connect((*ip, port))).await,
                Ok(Ok(_))
            ) {
                return Ok(vec![*ip]);
            }
        }
        addresses.truncate(1);
    }
    Ok(addresses)
}

/// `host:port`, without the scheme's own port, IPv6 in brackets.
fn authority(host: &str, port: u16, tls: bool) -> String {
    let host = match host.parse::<Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]"),
        Err(_) => host.to_owned(),
    };
    if port == if tls { 443 } else { 80 } {
        host
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_leave_the_default_port_out() {
        assert_eq!(authority("a.test", 80, false), "a.test");
        assert_eq!(authority("a.test", 80, true), "a.test:80");
        assert_eq!(authority("10.0.0.1", 8000, false), "10.0.0.1:8000");
        assert_eq!(authority("::1", 443, true), "[::1]");
        assert_eq!(authority("::1", 8000, false), "[::1]:8000");
    }
}
