package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	deploy  = "../../deploy"
	gateway = deploy + "/chart"
	pool    = deploy + "/inferencepool"
)

// Values of a whole: the chart, and what is said over its own values.
type values struct{ name, chart, text string }

const labels = "inferencePool: {modelServers: {matchLabels: {app: llama}}}"

// Values that must render, the chart's own among them.
var sound = []values{
	{"nothing said", gateway, ""},
	{"one copy", gateway, "controller: {replicas: 1}"},
	{"limited to namespaces", gateway, "controller: {namespaces: [a, b]}\ncertificates: {allNamespaces: true}"},
	{"certificates of two namespaces", gateway, "certificates: {namespaces: [ingress, edge]}"},
	{"everything on", gateway, `
image: {registry: registry.example.com, repository: team/pointsman, tag: 1.2.3, pullPolicy: Always}
imagePullSecrets: [{name: pull}]
controller:
  extraArgs: [--some=thing]
  extraEnv: [{name: A, value: b}]
  podAnnotations: {a: b}
  podLabels: {team: x}
  nodeSelector: {disk: ssd}
  tolerations: [{key: a, operator: Exists}]
  affinity: {nodeAffinity: {}}
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]
  serviceAccount: {annotations: {a: b}}
dataPlanes: {parameters: {replicas: 3, service: {type: NodePort, annotations: {a: b}}, resources: {requests: {cpu: 1}}, args: [--explain], sharing: false, imagePullSecrets: [pull]}}
gatewayClass: {name: inference, annotations: {a: b}}
certificates: {allNamespaces: true}
networkPolicies: {gatewayNamespaces: [edge], apiServer: [{ipBlock: {cidr: 10.0.0.1/32}}], dataPlaneEgress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}
monitoring: {serviceMonitor: {enabled: true, labels: {release: x}}, podMonitor: {enabled: true}}
`},
	{"everything off", gateway, `
gatewayClass: {create: false}
personas: {create: false}
admission: {enabled: false}
networkPolicies: {enabled: false}
controller: {serviceAccount: {create: false, name: mine}, podDisruptionBudget: {enabled: false}, priorityClassName: ""}
`},
	{"warnings only", gateway, "admission: {actions: [Warn, Audit]}"},
	{"a pool", pool, labels},
	{"a pool of the old group", pool, "inferencePool: {apiVersion: inference.networking.x-k8s.io/v1alpha2, modelServers: {matchLabels: {app: llama}}}"},
	{"upstream's values", pool, upstream},
	{"llm-d's values", pool, llmd},
	{"a picker for Istio", pool, labels + "\nprovider: {name: istio, istio: {destinationRule: {host: epp.example.com, trafficPolicy: {connectionPool: {http: {http1MaxPendingRequests: 1024}}}}}}"},
	{"flags as a list", pool, labels + "\ninferenceExtension: {flags: [{name: v, value: 3}]}"},
	{"pickers that all pick", pool, labels + allPick},
}

const allPick = "\ninferenceExtension: {replicas: 2, flags: {ha-enable-leader-election: false}}"

// As users of the Gateway API Inference Extension's chart have them.
const upstream = `
inferenceExtension:
  replicas: 2
  image: {registry: registry.example.com, repository: pointsman, tag: v1, pullPolicy: Always}
  extProcPort: 9002
  failureMode: FailClose
  env: [{name: A, value: b}]
  flags: {v: 3, kv-cache-usage-percentage-metric: "vllm:kv_cache_usage_perc"}
  pluginsConfigFile: custom.yaml
  pluginsCustomConfig: {custom.yaml: "kind: EndpointPickerConfig\n"}
  monitoring: {interval: 10s, prometheus: {enabled: true, auth: {enabled: true, secretName: reader}, extraLabels: {a: b}}}
inferencePool:
  targetPorts: [{number: 8000}, {number: 8001}]
  modelServerType: vllm
  modelServers: {matchLabels: {app: llama}}
provider: {name: none}
experimentalHttpRoute: {enabled: true, inferenceGatewayName: gw, inferenceGatewayNamespace: edge}
inferenceObjectives: [{name: interactive, priority: 10}]
`

// The same as users of llm-d's chart have it.
const llmd = `
router:
  epp:
    replicas: 2
    image: {registry: registry.example.com, repository: pointsman, tag: v1, pullPolicy: Always}
    extProcPort: 9002
    env: [{name: A, value: b}]
    flags: {v: 3, kv-cache-usage-percentage-metric: "vllm:kv_cache_usage_perc"}
    pluginsConfigFile: custom.yaml
    pluginsCustomConfig: {custom.yaml: "kind: EndpointPickerConfig\n"}
  inferencePool: {create: true, failureMode: FailClose}
  modelServers: {matchLabels: {app: llama}, type: vllm, protocol: http, targetPorts: [{number: 8000}, {number: 8001}]}
  monitoring: {interval: 10s, prometheus: {enabled: true, auth: {enabled: true, secretName: reader}, extraLabels: {a: b}}}
  tracing: {enabled: false}
  inferenceObjectives: [{name: interactive, priority: 10}]
provider: {name: none}
httpRoute: {create: true, inferenceGatewayName: gw, inferenceGatewayNamespace: edge, requestTimeout: 300s}
`

func TestChartsAreCleanAndRender(t *testing.T) {
	for _, v := range sound {
		t.Run(v.name, func(t *testing.T) {
			request := request{release: "llama", namespace: "ns", chart: v.chart, values: parsed(t, v.text)}
			if err := request.lint(); err != nil {
				t.Fatal(err)
			}
			if len(objects(t, v)) == 0 {
				t.Fatal("nothing is rendered")
			}
			if notes, err := request.notes(); err != nil || len(notes) < 40 {
				t.Errorf("%q %v", notes, err)
			}
		})
	}
}

func TestBadValuesAreRefused(t *testing.T) {
	for _, c := range []struct{ chart, text, words string }{
		{gateway, "controller: {replica: 3}", "replica"},
		{gateway, "unknown: 1", "unknown"},
		{gateway, "controller: {replicas: 0}", "replicas"},
		{gateway, "controller: {replicas: two}", "replicas"},
		{gateway, "controller: {port: 70000}", "port"},
		{gateway, "controller: {name: no-path}", "name"},
		{gateway, "controller: {namespaces: [Upper]}", "namespaces"},
		{gateway, "controller: {logFormat: xml}", "logFormat"},
		{gateway, "image: {pullPolicy: Sometimes}", "pullPolicy"},
		{gateway, "image: {digest: 'sha256:12'}", "digest"},
		{gateway, "admission: {actions: [Refuse]}", "actions"},
		{gateway, "admission: {actions: [Deny, Warn]}", "actions"},
		{gateway, "admission: {objectivePriority: {min: low}}", "min"},
		{gateway, "dataPlanes: {parameters: {replica: 3}}", "replica"},
		{gateway, "dataPlanes: {parameters: {sharing: often}}", "sharing"},
		{gateway, "dataPlanes: {parameters: {imagePullSecrets: [{name: pull}]}}", "imagePullSecrets"},
		{gateway, "dataPlanes: {parameters: {service: {type: ExternalName}}}", "type"},
		{gateway, "dataPlanes: {parameters: {podDisruptionBudget: {minAvailable: 1, maxUnavailable: 1}}}", "podDisruptionBudget"},
		{gateway, "monitoring: {serviceMonitor: {interval: often}}", "interval"},
		{gateway, "controller: {serviceAccount: {create: false}}", "serviceAccount.name is wanted"},
		{pool, "", "matchLabels"},
		{pool, labels + "\ninferenceExtension: {replica: 3}", "replica"},
		{pool, labels + "\ninferenceExtension: {failureMode: FailSoft}", "failureMode"},
		{pool, labels + "\ninferenceExtension: {pluginsConfigFile: gone.yaml}", "not among pluginsCustomConfig"},
		{pool, labels + "\ninferenceExtension: {latencyPredictor: {enabled: true}}", "latencyPredictor"},
		{pool, labels + "\ninferenceExtension: {sidecar: {enabled: true}}", "sidecar"},
		{pool, labels + "\nrouter: {tracing: {enabled: true}}", "tracing"},
		{pool, labels + "\nrouter: {proxy: {enabled: true}}", "router.proxy"},
		{pool, labels + "\nprovider: {name: gke}", "gke"},
		{pool, labels + "\nprovider: {name: other}", "name"},
		{pool, labels + "\ninferenceObjectives: [{name: x}]", "priority"},
		{pool, "inferencePool: {targetPorts: [{number: 0}], modelServers: {matchLabels: {app: x}}}", "number"},
		{pool, "inferencePool: {apiVersion: v1, modelServers: {matchLabels: {app: x}}}", "apiVersion"},
	} {
		request := request{release: "r", namespace: "ns", chart: c.chart, values: parsed(t, c.text)}
		_, err := request.template()
		if err == nil {
			t.Errorf("%s: taken", c.text)
		} else if !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: refused in other words: %v", c.text, err)
		}
	}
}

func TestBothTreesOfValuesSayTheSame(t *testing.T) {
	text := func(of string) string {
		request := request{release: "llama", namespace: "ns", chart: pool, values: parsed(t, of)}
		text, err := request.template()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if one, other := text(upstream), text(llmd); one != other {
		t.Errorf("they differ:\n%s\n%s", one, other)
	}
	for _, wanted := range []string{"--v=3", "--config-file=/config/custom.yaml", "--ha-enable-leader-election", "failureMode: FailClose",
		"number: 8001", "registry.example.com/pointsman:v1", "name: llama-epp-monitor", "priority: 10", "name: gw", "namespace: edge"} {
		if !strings.Contains(text(upstream), wanted) {
			t.Errorf("%s is missing", wanted)
		}
	}
}

// Every Pod would be admitted to a namespace of the level "restricted", and writes nothing to its root.
func TestPodsAreRestricted(t *testing.T) {
	pods := 0
	for _, v := range sound {
		for _, object := range objects(t, v) {
			if object["kind"] != "Deployment" {
				continue
			}
			pods++
			pod := at(object, "spec.template.spec").(map[string]any)
			if at(pod, "securityContext.runAsNonRoot") != true || at(pod, "securityContext.runAsUser") != 65532.0 ||
				at(pod, "securityContext.seccompProfile.type") != "RuntimeDefault" {
				t.Errorf("%s: %v", v.name, pod["securityContext"])
			}
			for _, container := range pod["containers"].([]any) {
				if at(container, "securityContext.readOnlyRootFilesystem") != true ||
					at(container, "securityContext.allowPrivilegeEscalation") != false ||
					at(container, "securityContext.capabilities.drop").([]any)[0] != "ALL" ||
					at(container, "livenessProbe") == nil || at(container, "readinessProbe") == nil || at(container, "resources") == nil {
					t.Errorf("%s: %v", v.name, container)
				}
			}
		}
	}
	if pods < len(sound)-1 {
		t.Errorf("only %d Deployments were seen", pods)
	}
}

// Which roles allow what, by kind and namespace of the role.
func TestRolesAllowNoMore(t *testing.T) {
	for _, c := range []struct{ text, resource, where string }{
		{"", "secrets", "Role/ns"},
		{"certificates: {namespaces: [ingress, edge]}", "secrets", "Role/edge Role/ingress Role/ns"},
		{"certificates: {allNamespaces: true}", "secrets", "ClusterRole/ Role/ns"},
		{"", "deployments", "ClusterRole/"},
		{"controller: {namespaces: [a, b]}", "deployments", "Role/a Role/b"},
		{"controller: {namespaces: [a, b]}\ncertificates: {allNamespaces: true}", "secrets", "Role/a Role/b Role/ns"},
		{"controller: {namespaces: [a, b]}", "gatewayclasses", "ClusterRole/"},
		{"", "leases", "Role/ns"},
		{"", "pods/exec", ""},
		{"", "nodes", ""},
	} {
		found := map[string]bool{}
		for _, object := range objects(t, values{"", gateway, c.text + "\npersonas: {create: false}"}) {
			if kind := object["kind"].(string); kind == "ClusterRole" || kind == "Role" {
				namespace, _ := at(object, "metadata.namespace").(string)
				for _, rule := range object["rules"].([]any) {
					for _, resource := range at(rule, "resources").([]any) {
						if resource == "*" {
							t.Errorf("%s may touch everything", kind)
						}
						if resource == c.resource {
							found[kind+"/"+namespace] = true
						}
					}
					for _, verb := range at(rule, "verbs").([]any) {
						if verb == "*" {
							t.Errorf("%s may do everything", kind)
						}
					}
				}
			}
		}
		if where := strings.Join(slices.Sorted(maps.Keys(found)), " "); where != c.where {
			t.Errorf("%s, %s: in %q, not %q", c.text, c.resource, where, c.where)
		}
	}
}

// A budget is for copies that all serve: one copy, or one that leads, could then never be moved.
func TestBudgetsOnlyWhereTheyDoNotBlockDrains(t *testing.T) {
	for _, c := range []struct {
		chart, text string
		budgets     int
		rolling     any
	}{
		{gateway, "", 1, 0.0},
		{gateway, "controller: {replicas: 1}", 0, 0.0},
		{gateway, "controller: {podDisruptionBudget: {enabled: false}}", 0, 0.0},
		{pool, labels, 0, 0.0},
		{pool, labels + "\ninferenceExtension: {replicas: 2}", 0, "100%"},
		{pool, labels + allPick, 1, 0.0},
		{pool, labels + "\ninferenceExtension: {replicas: 2, flags: [{name: ha-enable-leader-election, value: true}]}", 0, "100%"},
	} {
		budgets := 0
		for _, object := range objects(t, values{"", c.chart, c.text}) {
			switch object["kind"] {
			case "PodDisruptionBudget":
				budgets++
			case "Deployment":
				if rolling := at(object, "spec.strategy.rollingUpdate.maxUnavailable"); rolling != c.rolling {
					t.Errorf("%q: %v may be missing in a rollout", c.text, rolling)
				}
			}
		}
		if budgets != c.budgets {
			t.Errorf("%q: %d budgets", c.text, budgets)
		}
	}
}

// The manifest in the repository is what the chart renders.
func TestInstallManifestIsRendered(t *testing.T) {
	request := request{release: "pointsman", namespace: "pointsman-system", chart: gateway, values: map[string]any{}}
	text, err := request.manifest()
	if err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadFile(deploy + "/install.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if text != string(committed) {
		t.Error("deploy/install.yaml is not what deploy/chart renders; write it anew:\n" +
			"  (cd conformance/chart && go run . manifest -n pointsman-system pointsman ../../deploy/chart) > deploy/install.yaml")
	}
	definitions, err := filepath.Glob("../../config/crd/*.yaml")
	if err != nil || strings.Count(text, "kind: CustomResourceDefinition") != len(definitions) {
		t.Errorf("not every definition of config/crd is in it (%d) %v", len(definitions), err)
	}
}

func parsed(t *testing.T, text string) map[string]any {
	t.Helper()
	values := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &values); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return values
}

func objects(t *testing.T, v values) []map[string]any {
	t.Helper()
	request := request{release: "llama", namespace: "ns", chart: v.chart, values: parsed(t, v.text)}
	text, err := request.template()
	if err != nil {
		t.Fatalf("%s: %v", v.name, err)
	}
	var found []map[string]any
	for _, part := range strings.Split(text, "\n---\n") {
		object := map[string]any{}
		if err := yaml.UnmarshalStrict([]byte(part), &object); err != nil {
			t.Fatalf("%s: %v\n%s", v.name, err, part)
		}
		if len(object) > 0 {
			found = append(found, object)
		}
	}
	return found
}

func at(object any, path string) any {
	for _, field := range strings.Split(path, ".") {
		fields, _ := object.(map[string]any)
		object = fields[field]
	}
	return object
}
