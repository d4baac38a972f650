//! Kubernetes objects in a folder.

use std::net::SocketAddr;
use std::path::Path;

/// The two objects with which the project began, to the letter.
pub const THE_TWO_OBJECTS: &str = "\
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: customer-support-bot, namespace: ai-workloads}
spec:
  modelName: customer-support
  criticality: Critical
  poolRef: {name: llama-pool}
  targetModels:
    - {name: llama-3-8b-customer-v1, weight: 80}
    - {name: llama-3-8b-customer-v2, weight: 20}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: llama-pool, namespace: ai-workloads}
spec:
  targetPortNumber: 8000
  selector: {app: llama-server, version: v1}
  extensionRef: {name: llama-endpoint-picker}
";

/// A folder of YAML files that goes with its guard.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// A folder with these files.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        for (name, text) in files {
            folder.write(name, text);
        }
        folder
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file as editors do: beside it, then renamed over it.
    pub fn write(&self, name: &str, text: &str) {
        let beside = self.0.path().join(format!(".{name}.new"));
        std::fs::write(&beside, text).expect("writes");
        std::fs::rename(beside, self.0.path().join(name)).expect("renames");
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.path().join(name)).expect("removes");
    }
}

/// An EndpointSlice of one server, with a line of labels such as `app: llama-server, version: v1`.
pub fn slice(namespace: &str, name: &str, labels: &str, server: SocketAddr) -> String {
    format!(
        "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}
addressType: IPv4
ports: [{{port: {}}}]
endpoints: [{{addresses: [\"{}\"]}}]
",
        server.port(),
        server.ip()
    )
}

/// A Gateway of any class with one HTTP listener for routes of all namespaces.
pub fn gateway(namespace: &str, name: &str, port: u16) -> String {
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  gatewayClassName: any
  listeners:
    - {{name: http, port: {port}, protocol: HTTP, allowedRoutes: {{namespaces: {{from: All}}}}}}
"
    )
}

/// A v1 pool.
pub fn pool(namespace: &str, name: &str, app: &str) -> String {
    format!(
        "---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: {app}}}}}
  targetPorts: [{{number: 8000}}]
  endpointPickerRef: {{name: {name}-picker, port: {{number: 9002}}}}
"
    )
}

/// A Service.
pub fn service(namespace: &str, name: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: 80, targetPort: 8000}}]
"
    )
}

/// An HTTPRoute to a Gateway named `gateway`, with its rules in YAML indented by four.
pub fn route(namespace: &str, name: &str, rules: &str) -> String {
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  parentRefs: [{{name: gateway, namespace: edge}}]
  rules:
{rules}
"
    )
}
