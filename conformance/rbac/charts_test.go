package rbac

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What the charts render over other values than their own: the API server knows every field and admits it.
// (Kinds of operators that are not installed are left out.)
func TestTheAPIServerAdmitsWhatChartsRender(t *testing.T) {
	for _, c := range []struct{ name, chart, values string }{
		{"namespaces", "chart", "fullnameOverride: second\ngatewayClass: {name: second}\ncontroller: {name: example.com/second, namespaces: [team-a, team-b]}\ncertificates: {allNamespaces: true}"},
		{"everything", "chart", `
fullnameOverride: third
gatewayClass: {name: third}
image: {registry: registry.example.com, digest: "sha256:` + strings.Repeat("0", 64) + `"}
controller: {topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {a: b}}}], podLabels: {a: b}, podAnnotations: {a: b}}
dataPlanes: {parameters: {replicas: 3}}
certificates: {namespaces: [team-a]}
admission: {actions: [Warn, Audit], objectivePriority: {min: 0, max: 5}}
networkPolicies: {gatewayNamespaces: [team-a], apiServer: [{ipBlock: {cidr: 10.0.0.1/32}}], dataPlaneEgress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}`},
		{"a pool", "inferencepool", "inferencePool: {modelServers: {matchLabels: {app: llama}}}\ninferenceExtension: {replicas: 2, pluginsConfigFile: a.yaml, pluginsCustomConfig: {a.yaml: text}}\nexperimentalHttpRoute: {enabled: true}\ninferenceObjectives: [{name: x, priority: 1}]"},
		{"an old pool", "inferencepool", "inferencePool: {apiVersion: inference.networking.x-k8s.io/v1alpha2, modelServers: {matchLabels: {app: llama}}}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if output, err := kubectl(rendered(t, c.chart, team, c.values), "apply", "--dry-run=server", "-f", "-"); err != nil || strings.Contains(output, "Warning") {
				t.Error(output)
			}
		})
	}
}

// The picker of the chart, under its own account: ready, and nothing was refused to it.
func TestThePickersRoleSuffices(t *testing.T) {
	values := "inferencePool: {modelServers: {matchLabels: {app: llama}}}\ninferenceExtension: {replicas: 2}"
	if output, err := kubectl(rendered(t, "inferencepool", "default", values), "apply", "-f", "-"); err != nil {
		t.Fatal(output)
	}
	// Two copies with leader election: one of them is ready.
	if err := eventually(func() error {
		ready, _ := kubectl("", "-n", "default", "get", "deployment", "picked-epp", "-o", "jsonpath={.status.readyReplicas}")
		if ready != "1" {
			return fmt.Errorf("%q copies are ready", ready)
		}
		return nil
	}); err != nil {
		state, _ := kubectl("", "-n", "default", "logs", "deployment/picked-epp", "--all-pods")
		t.Fatalf("%v\n%s", err, state)
	}
	noneForbidden(t, "default", "app.kubernetes.io/name=picked-epp")
}

func rendered(t *testing.T, chart, namespace, values string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(os.Getenv("REPOSITORY"), "deploy", chart)
	command := exec.Command("chart", "template", "-f", file, "-n", namespace, "picked", folder)
	output, err := command.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return string(output)
}
