//! Endpoint pickers of other people, for tests without a runtime of their own.
//!
//! The script and the protocol's types are those of the data plane's tests: the protocol is Envoy's, not ours.
#![allow(unreachable_pub)]

#[path = "../../../proxy/tests/common/picker.rs"]
mod script;

use std::net::SocketAddr;

use crate::support::slice;
pub use script::Seen;

/// A picker on threads of its own. It ends with its guard.
pub struct Picker {
    runtime: tokio::runtime::Runtime,
    picker: script::Picker,
    pub address: SocketAddr,
}

impl Picker {
    /// A picker that sends everything to these servers, and all bodies back as they are.
    pub fn to(servers: &[SocketAddr]) -> Self {
        let list: Vec<String> = servers.iter().map(ToString::to_string).collect();
        let list = list.join(",");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let picker = runtime.block_on(script::Picker::echo(list));
        Self {
            address: picker.address,
            runtime,
            picker,
        }
    }

    /// Its process ends.
    pub fn kill(&self) {
        self.picker.kill();
        // Tasks end at their next turn.
        self.runtime.block_on(tokio::task::yield_now());
    }

    /// Requests it was asked about.
    pub fn count(&self) -> usize {
        self.picker.count()
    }

    /// What it was told, in the order of the calls.
    pub fn seen(&self) -> Vec<Seen> {
        self.picker.seen.lock().clone()
    }
}

/// The Service of a pool's picker, cleartext.
pub fn picker_service(namespace: &str, pool: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {pool}-picker, namespace: {namespace}}}
spec:
  ports: [{{port: 9002, appProtocol: kubernetes.io/h2c}}]
"
    )
}

/// Where that Service leads.
pub fn picker_slice(namespace: &str, pool: &str, address: SocketAddr) -> String {
    let label = format!("kubernetes.io/service-name: {pool}-picker");
    slice(namespace, &format!("{pool}-picker"), &label, address)
}
