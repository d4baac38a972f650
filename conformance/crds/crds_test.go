// Package crds checks the project's custom resource definitions on a real API server: what is admitted, what is
// refused and with which words, and what is defaulted. It runs inside a world in which config/crd is applied:
//
//	testworld exec -- crds.test -test.v
package crds

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

const (
	v1    = "inference.networking.k8s.io/v1"
	old   = "inference.networking.x-k8s.io/v1alpha2"
	alpha = "inference.networking.x-k8s.io/v1alpha1"
	llmd  = "llm-d.ai/v1alpha2"
	llmd1 = "llm-d.ai/v1alpha1"
)

// Each object: its version and kind, its spec as YAML in flow style, and a part of the refusal; none means admitted.
var objects = []struct{ name, version, kind, spec, refusal string }{
	{"a pool", v1, "InferencePool", `{selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}], endpointPickerRef: {name: epp, port: {number: 9002}}}`, ""},
	{"a pool without a picker", v1, "InferencePool", `{selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}]}`, ""},
	{"HTTP/2", v1, "InferencePool", `{selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}], appProtocol: kubernetes.io/h2c}`, ""},
	{"another protocol", v1, "InferencePool", `{selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}], appProtocol: https}`, "Unsupported value"},
	{"several ports", v1, "InferencePool", `{selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}, {number: 8001}]}`, ""},
	{"a port twice", v1, "InferencePool", `{selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}, {number: 8000}]}`, "port number must be unique"},
	{"nine ports", v1, "InferencePool", `{selector: {matchLabels: {app: x}}, targetPorts: [{number: 1}, {number: 2}, {number: 3}, {number: 4}, {number: 5}, {number: 6}, {number: 7}, {number: 8}, {number: 9}]}`, "8 items"},
	{"no port", v1, "InferencePool", `{selector: {matchLabels: {app: x}}, targetPorts: []}`, "at least 1 items"},
	{"port 0", v1, "InferencePool", `{selector: {matchLabels: {app: x}}, targetPorts: [{number: 0}]}`, "greater than or equal to 1"},
	{"port 65536", v1, "InferencePool", `{selector: {matchLabels: {app: x}}, targetPorts: [{number: 65536}]}`, "less than or equal to 65535"},
	{"no selector", v1, "InferencePool", `{targetPorts: [{number: 8000}]}`, "spec.selector: Required"},
	{"an empty selector", v1, "InferencePool", `{selector: {matchLabels: {}}, targetPorts: [{number: 8000}]}`, "at least 1 properties"},
	{"a label that is none", v1, "InferencePool", `{selector: {matchLabels: {app: "-x"}}, targetPorts: [{number: 8000}]}`, "should match"},
	{"an empty label", v1, "InferencePool", `{selector: {matchLabels: {app: ""}}, targetPorts: [{number: 8000}]}`, ""},
	{"a picker without a port", v1, "InferencePool", `{selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}], endpointPickerRef: {name: epp}}`, "port is required when kind is 'Service'"},
	{"a picking Service without a port", v1, "InferencePool", `{selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}], endpointPickerRef: {name: epp, kind: Service}}`, "port is required when kind is 'Service'"},
	{"a picker of another kind", v1, "InferencePool", `{selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}], endpointPickerRef: {name: epp, group: example.com, kind: Other}}`, ""},
	{"another failure mode", v1, "InferencePool", `{selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}], endpointPickerRef: {name: epp, port: {number: 1}, failureMode: FailSoft}}`, "Unsupported value"},
	{"an old pool", old, "InferencePool", `{selector: {app: x}, targetPortNumber: 8000, extensionRef: {name: epp}}`, ""},
	{"an old pool without a port", old, "InferencePool", `{selector: {app: x}}`, "spec.targetPortNumber: Required"},
	{"a model", old, "InferenceModel", `{modelName: m, criticality: Critical, poolRef: {name: p}, targetModels: [{name: a, weight: 80}, {name: b, weight: 20}]}`, ""},
	{"a model without weights", old, "InferenceModel", `{modelName: m, poolRef: {name: p}, targetModels: [{name: a}, {name: b}]}`, ""},
	{"weights on some targets", old, "InferenceModel", `{modelName: m, poolRef: {name: p}, targetModels: [{name: a, weight: 80}, {name: b}]}`, "Weights should be set for all models, or none of the models."},
	{"a weight of 0", old, "InferenceModel", `{modelName: m, poolRef: {name: p}, targetModels: [{name: a, weight: 0}]}`, "greater than or equal to 1"},
	{"a criticality nobody knows", old, "InferenceModel", `{modelName: m, criticality: Urgent, poolRef: {name: p}}`, "Unsupported value"},
	{"a model of no pool", old, "InferenceModel", `{modelName: m}`, "spec.poolRef: Required"},
	{"an objective", old, "InferenceObjective", `{priority: -10, poolRef: {name: p}}`, ""},
	{"an objective without a priority", llmd, "InferenceObjective", `{poolRef: {name: p}}`, ""},
	{"an objective of the first llm-d version", llmd1, "InferenceObjective", `{priority: 3, poolRef: {name: p}}`, ""},
	{"a priority in words", llmd, "InferenceObjective", `{priority: high, poolRef: {name: p}}`, "must be of type integer"},
	{"an objective of no pool", old, "InferenceObjective", `{priority: 1}`, "spec.poolRef: Required"},
	{"a rewrite", old, "InferenceModelRewrite", `{poolRef: {name: p}, rules: [{matches: [{model: {value: a}}], targets: [{modelRewrite: b, weight: 1}]}]}`, ""},
	{"a rewrite of everything", llmd, "InferenceModelRewrite", `{poolRef: {name: p}, rules: [{targets: [{modelRewrite: b}]}]}`, ""},
	{"a match by pattern", llmd, "InferenceModelRewrite", `{poolRef: {name: p}, rules: [{matches: [{model: {type: Prefix, value: a}}]}]}`, "Unsupported value"},
	{"no targets", old, "InferenceModelRewrite", `{poolRef: {name: p}, rules: [{targets: []}]}`, "at least 1 items"},
	{"no rules", old, "InferenceModelRewrite", `{poolRef: {name: p}}`, "spec.rules: Required"},
	{"an import", alpha, "InferencePoolImport", "", ""},
}

func TestObjectsAreAdmittedOrRefused(t *testing.T) {
	for _, object := range objects {
		t.Run(object.name, func(t *testing.T) {
			output, err := apply(manifest(object.version, object.kind, "x", object.spec), "--dry-run=server")
			if object.refusal == "" {
				if err != nil {
					t.Fatalf("refused: %s", output)
				}
				return
			}
			if err == nil {
				t.Fatal("admitted")
			}
			if !strings.Contains(output, object.refusal) {
				t.Fatalf("refused in other words: %s", output)
			}
		})
	}
}

func TestWhatIsLeftOutIsDefaulted(t *testing.T) {
	for _, c := range []struct{ version, kind, spec, path, value string }{
		{v1, "InferencePool", `{selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}], endpointPickerRef: {name: epp, port: {number: 9002}}}`, "spec.appProtocol", "http"},
		{v1, "InferencePool", `{selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}], endpointPickerRef: {name: epp, port: {number: 9002}}}`, "spec.endpointPickerRef.kind", "Service"},
		{v1, "InferencePool", `{selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}], endpointPickerRef: {name: epp, port: {number: 9002}}}`, "spec.endpointPickerRef.failureMode", "FailClose"},
		{old, "InferencePool", `{selector: {app: x}, targetPortNumber: 8000, extensionRef: {name: epp}}`, "spec.extensionRef.failureMode", "FailClose"},
		{old, "InferenceModel", `{modelName: m, poolRef: {name: p}}`, "spec.poolRef.group", "inference.networking.x-k8s.io"},
		{old, "InferenceObjective", `{poolRef: {name: p}}`, "spec.poolRef.group", "inference.networking.k8s.io"},
		{llmd, "InferenceModelRewrite", `{poolRef: {name: p}, rules: []}`, "spec.poolRef.kind", "InferencePool"},
	} {
		output, err := apply(manifest(c.version, c.kind, "x", c.spec), "--dry-run=server", "-o", "json")
		if err != nil {
			t.Errorf("%s: refused: %s", c.kind, output)
			continue
		}
		var object any
		if err := json.Unmarshal([]byte(output), &object); err != nil {
			t.Fatal(err)
		}
		for _, field := range strings.Split(c.path, ".") {
			fields, _ := object.(map[string]any)
			object = fields[field]
		}
		if object != c.value {
			t.Errorf("%s %s: %s is %v", c.version, c.kind, c.path, object)
		}
	}
}

// The placeholder that every pool of the old group has until a controller writes, and names that never change.
func TestObjectsAsTheyAreStored(t *testing.T) {
	t.Cleanup(func() {
		_, _ = kubectl("", "delete", "--ignore-not-found", "inferencepools.inference.networking.x-k8s.io/placeholder", "inferencemodels/fixed")
	})
	if output, err := apply(manifest(old, "InferencePool", "placeholder", `{selector: {app: x}, targetPortNumber: 8000}`)); err != nil {
		t.Fatal(output)
	}
	parents, err := kubectl("", "get", "inferencepools.inference.networking.x-k8s.io", "placeholder", "-o", "jsonpath={.status.parent[*].parentRef.kind}/{.status.parent[*].conditions[*].reason}")
	if err != nil || parents != "Status/Pending" {
		t.Errorf("the placeholder: %s", parents)
	}
	if output, err := apply(manifest(old, "InferenceModel", "fixed", `{modelName: one, poolRef: {name: p}}`)); err != nil {
		t.Fatal(output)
	}
	if output, err := apply(manifest(old, "InferenceModel", "fixed", `{modelName: two, poolRef: {name: p}}`)); err == nil || !strings.Contains(output, "modelName is immutable") {
		t.Errorf("another name was taken: %s", output)
	}
	for _, short := range []string{"infpool", "xinfpool", "infpimp"} {
		if output, err := kubectl("", "get", short); err != nil {
			t.Errorf("%s: %s", short, output)
		}
	}
}

func manifest(version, kind, name, spec string) string {
	text := "{apiVersion: " + version + ", kind: " + kind + ", metadata: {name: " + name + ", namespace: default}"
	if spec != "" {
		text += ", spec: " + spec
	}
	return text + "}"
}

func apply(manifest string, flags ...string) (string, error) {
	return kubectl(manifest, append([]string{"apply", "-f", "-"}, flags...)...)
}

func kubectl(input string, args ...string) (string, error) {
	command := exec.Command("testworld", append([]string{"kubectl"}, args...)...)
	command.Stdin = strings.NewReader(input)
	output, err := command.CombinedOutput()
	return strings.TrimSpace(string(output)), err
}
