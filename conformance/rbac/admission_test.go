package rbac

import (
	"fmt"
	"strings"
	"testing"
)

// Objects, who makes them and where; a part of the refusal, of a warning ("Warning: ..."), or nothing: admitted.
var admitted = []struct{ name, who, namespace, object, words string }{
	{"a pool", "admin", team, pool(`{selector: {matchLabels: {app: x, example.com/tier: gold}}, targetPorts: [{number: 8000}], endpointPickerRef: {name: epp, port: {number: 9002}}}`), ""},
	{"a key that is no label's", "admin", team, pool(`{selector: {matchLabels: {"app in (x)": x}}, targetPorts: [{number: 8000}]}`), "a key of the selector is no label's key"},
	{"a prefix without a name", "admin", team, pool(`{selector: {matchLabels: {example.com/: x}}, targetPorts: [{number: 8000}]}`), "a key of the selector is no label's key"},
	{"a picking Service with a group", "admin", team, pool(`{selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}], endpointPickerRef: {group: apps, name: epp, port: {number: 9002}}}`), "Services have no group"},
	{"a picker of another kind", "admin", team, pool(`{selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}], endpointPickerRef: {group: example.com, kind: Picker, name: epp}}`), ""},
	{"an old pool", "admin", team, alpha("InferencePool", `{selector: {app: x}, targetPortNumber: 8000, extensionRef: {name: epp}}`), ""},
	{"an old pool that selects nothing", "admin", team, alpha("InferencePool", `{selector: {}, targetPortNumber: 8000}`), "an empty selector selects no Pod"},

	{"a priority", "owner", team, alpha("InferenceObjective", `{priority: 1000, poolRef: {name: p}}`), ""},
	{"no priority", "owner", team, alpha("InferenceObjective", `{poolRef: {name: p}}`), ""},
	{"a negative priority", "owner", team, alpha("InferenceObjective", `{priority: -1000, poolRef: {name: p}}`), ""},
	{"a priority above the default's", "owner", team, alpha("InferenceObjective", `{priority: 1001, poolRef: {name: p}}`), "priority 1001 is not between -1000 and 1000, which namespace team-a may use"},
	{"a priority below the default's", "owner", team, alpha("InferenceObjective", `{priority: -1001, poolRef: {name: p}}`), "is not between"},
	{"the same of llm-d", "owner", team, object("llm-d.ai/v1alpha2", "InferenceObjective", `{priority: 5000, poolRef: {name: p}}`), "is not between"},
	{"a priority within the namespace's", "admin", "bounded", alpha("InferenceObjective", `{priority: -5, poolRef: {name: p}}`), ""},
	{"a priority above the namespace's", "admin", "bounded", alpha("InferenceObjective", `{priority: 11, poolRef: {name: p}}`), "priority 11 is not between -5 and 10, which namespace bounded may use"},
	{"a priority below the namespace's", "admin", "bounded", alpha("InferenceObjective", `{priority: -6, poolRef: {name: p}}`), "is not between"},
	{"bounds that are no numbers", "admin", "unreadable", alpha("InferenceObjective", `{priority: 1, poolRef: {name: p}}`), "must be whole numbers"},

	{"a rewrite", "owner", team, alpha("InferenceModelRewrite", `{poolRef: {name: p}, rules: [{matches: [{model: {value: a}}, {model: {value: b}}], targets: [{modelRewrite: c, weight: 1}, {modelRewrite: d, weight: 2}]}, {targets: [{modelRewrite: e}]}]}`), ""},
	{"a rule without targets", "owner", team, alpha("InferenceModelRewrite", `{poolRef: {name: p}, rules: [{matches: [{model: {value: a}}]}]}`), "a rule without targets names no model"},
	{"an empty model", "owner", team, alpha("InferenceModelRewrite", `{poolRef: {name: p}, rules: [{targets: [{modelRewrite: ""}]}]}`), "modelRewrite"},
	{"a weight here and none there", "owner", team, alpha("InferenceModelRewrite", `{poolRef: {name: p}, rules: [{targets: [{modelRewrite: a, weight: 1}, {modelRewrite: b}]}]}`), "give all targets of a rule a weight, or none"},
	{"a model in two rules", "owner", team, object("llm-d.ai/v1alpha2", "InferenceModelRewrite", `{poolRef: {name: p}, rules: [{matches: [{model: {value: a}}], targets: [{modelRewrite: b}]}, {matches: [{model: {value: a}}], targets: [{modelRewrite: c}]}]}`), "the second would never apply"},

	{"a route of a free namespace", "owner", team, route(`{hostnames: [anything.example.org]}`), ""},
	{"a hostname of the namespace's", "admin", "named", route(`{hostnames: [models.example.com]}`), ""},
	{"hostnames under the namespace's", "admin", "named", route(`{hostnames: [a.team.example.com, "*.b.team.example.com"]}`), ""},
	{"a hostname of somebody else", "admin", "named", route(`{hostnames: [models.example.com, chat.example.com]}`), "namespace named may claim only models.example.com, *.team.example.com"},
	{"the parent of a wildcard", "admin", "named", route(`{hostnames: [team.example.com]}`), "may claim only"},
	{"a wildcard over the namespace's", "admin", "named", route(`{hostnames: ["*.example.com"]}`), "may claim only"},
	{"no hostnames at all", "admin", "named", route(`{parentRefs: [{name: x}]}`), "without hostnames a route takes all of its listener"},
	{"the same for gRPC", "admin", "named", object("gateway.networking.k8s.io/v1", "GRPCRoute", `{hostnames: [chat.example.com]}`), "may claim only"},

	{"the old kind", "owner", team, alpha("InferenceModel", `{modelName: m, poolRef: {name: p}}`), "Warning: Validation failed for ValidatingAdmissionPolicy 'pointsman-deprecated'"},

	{"a data plane", controller, team, dataPlane(labelled, owned, ``, ``), ""},
	{"a Deployment of no Gateway", controller, team, dataPlane(`{app: x}`, owned, ``, ``), "the controller may write objects of Gateways only"},
	{"a Deployment that nothing owns", controller, team, dataPlane(labelled, `[]`, ``, ``), "what the controller writes belongs to a Gateway"},
	{"a data plane with an API token", controller, team, dataPlane(labelled, owned, `automountServiceAccountToken: true`, ``), "data planes have neither an API token"},
	{"a data plane on the host's network", controller, team, dataPlane(labelled, owned, `automountServiceAccountToken: false, hostNetwork: true`, ``), "nor the host's namespaces"},
	{"a data plane with the host's files", controller, team, dataPlane(labelled, owned, `automountServiceAccountToken: false, volumes: [{name: v, hostPath: {path: /}}]`, ``), "mount neither the host's files"},
	{"a data plane with a Secret", controller, team, dataPlane(labelled, owned, `automountServiceAccountToken: false, volumes: [{name: v, secret: {secretName: db}}]`, ``), "other people's Secrets"},
	{"a data plane with a projected Secret", controller, team, dataPlane(labelled, owned, `automountServiceAccountToken: false, volumes: [{name: v, projected: {sources: [{secret: {name: db}}]}}]`, ``), "other people's Secrets"},
	{"a Secret in the environment", controller, team, dataPlane(labelled, owned, ``, `env: [{name: A, valueFrom: {secretKeyRef: {name: db, key: password}}}]`), "without Secrets in their environment"},
	{"a privileged data plane", controller, team, dataPlane(labelled, owned, ``, `securityContext: {privileged: true}`), "without privileges"},
	{"a Service of a Gateway", controller, team, service(labelled, `{selector: {app.kubernetes.io/name: pointsman, app.kubernetes.io/instance: inference-pointsman}, ports: [{port: 80}]}`), ""},
	{"a Service to somewhere else", controller, team, service(labelled, `{type: ExternalName, externalName: example.com}`), "Services lead to data planes"},
	{"a Service of another's Pods", controller, team, service(labelled, `{selector: {app: db}, ports: [{port: 80}]}`), "Services lead to data planes"},
	{"somebody else's Deployment", "developer", team, dataPlane(`{app: x}`, `[]`, ``, ``), ""},
}

const (
	labelled = `{gateway.networking.k8s.io/gateway-name: inference, app.kubernetes.io/managed-by: pointsman}`
	owned    = `[{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, name: inference, uid: 6f1a1e5e-0000-4000-8000-000000000000}]`
)

func dataPlane(labels, owners, pod, container string) string {
	if pod == "" {
		pod = "automountServiceAccountToken: false"
	}
	if !strings.Contains(container, "securityContext") {
		container = strings.TrimSuffix("securityContext: {allowPrivilegeEscalation: false}, "+container, ", ")
	}
	return fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: inference-pointsman, labels: %s, ownerReferences: %s}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {%s, containers: [{name: c, image: i, %s}]}}}}`,
		labels, owners, pod, container)
}

func service(labels, spec string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Service, metadata: {name: inference-pointsman, labels: %s, ownerReferences: %s}, spec: %s}`, labels, owned, spec)
}

func TestWhatTheDefinitionsLeaveOpen(t *testing.T) {
	for name, annotations := range map[string]string{
		"bounded":    `{pointsman.dev/min-priority: "-5", pointsman.dev/max-priority: "10"}`,
		"unreadable": `{pointsman.dev/max-priority: high}`,
		"named":      `{pointsman.dev/hostnames: "models.example.com, *.team.example.com"}`,
	} {
		if output, err := kubectl(fmt.Sprintf("{apiVersion: v1, kind: Namespace, metadata: {name: %s, annotations: %s}}", name, annotations), "apply", "-f", "-"); err != nil {
			t.Fatal(output)
		}
	}
	for _, c := range admitted {
		t.Run(c.name, func(t *testing.T) {
			output, err := as(c.who, c.namespace, c.object)
			switch {
			case c.words == "" && (err != nil || strings.Contains(output, "Warning")):
				t.Errorf("refused: %s", output)
			case strings.HasPrefix(c.words, "Warning") && (err != nil || !strings.Contains(output, c.words)):
				t.Errorf("no warning: %s", output)
			case c.words != "" && !strings.HasPrefix(c.words, "Warning") && err == nil:
				t.Errorf("admitted: %s", output)
			case !strings.Contains(output, c.words):
				t.Errorf("refused in other words: %s", output)
			}
		})
	}
}

// Objects that were there before a policy may still be changed elsewhere, and deleted.
func TestOldObjectsAreNotStuck(t *testing.T) {
	if output, err := kubectl("{apiVersion: v1, kind: Namespace, metadata: {name: narrowed}}", "apply", "-f", "-"); err != nil {
		t.Fatal(output)
	}
	if output, err := kubectl(alpha("InferenceObjective", `{priority: 500, poolRef: {name: p}}`), "-n", "narrowed", "apply", "-f", "-"); err != nil {
		t.Fatal(output)
	}
	if output, err := kubectl("", "annotate", "namespace", "narrowed", "pointsman.dev/max-priority=10"); err != nil {
		t.Fatal(output)
	}
	if err := eventually(func() error {
		if output, err := as("admin", "narrowed", alpha("InferenceObjective", `{priority: 500, poolRef: {name: p}}`)); err == nil {
			return fmt.Errorf("still admitted: %s", output)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"label", "inferenceobjectives.inference.networking.x-k8s.io", "x", "a=b"},
		{"patch", "inferenceobjectives.inference.networking.x-k8s.io", "x", "--type=merge", "-p", `{"spec":{"poolRef":{"name":"q"}}}`},
		{"delete", "inferenceobjectives.inference.networking.x-k8s.io", "x"},
	} {
		if output, err := kubectl("", append([]string{"-n", "narrowed"}, args...)...); err != nil {
			t.Errorf("%v: %s", args, output)
		}
	}
}

// The controller may not take or delete what is no Gateway's, though its role says so.
func TestTheControllerLeavesOthersAlone(t *testing.T) {
	if output, err := kubectl("{apiVersion: v1, kind: ConfigMap, metadata: {name: precious}, data: {a: b}}", "-n", team, "apply", "-f", "-"); err != nil {
		t.Fatal(output)
	}
	for _, args := range [][]string{
		{"delete", "configmap", "precious"},
		{"patch", "configmap", "precious", "-p", `{"data":{"a":"c"}}`},
		{"patch", "configmap", "precious", "-p", `{"metadata":{"labels":{"gateway.networking.k8s.io/gateway-name":"x","app.kubernetes.io/managed-by":"pointsman"}}}`},
	} {
		output, err := kubectl("", append([]string{"--as=" + controller, "-n", team}, args...)...)
		if err == nil || !strings.Contains(output, "the controller may write objects of Gateways only") {
			t.Errorf("%v: %s", args, output)
		}
	}
	if value, err := kubectl("", "-n", team, "get", "configmap", "precious", "-o", "jsonpath={.data.a}"); err != nil || value != "b" {
		t.Errorf("it is %q now", value)
	}
}
