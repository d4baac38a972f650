// Package rbac checks on a real API server who may do what once deploy/install.yaml is applied: people (the charts'
// personas), the controller, and what admission says to those who may. It runs inside a world in which install.yaml and
// the Gateway API's definitions are applied and its image stands for the program:
//
//	REPOSITORY=... testworld exec -- rbac.test -test.v
package rbac

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const (
	system     = "pointsman-system"
	controller = "system:serviceaccount:" + system + ":pointsman-controller"
	team       = "team-a"
	other      = "team-b"
	patience   = 60 * time.Second
)

// People, and how they got their rights: by a binding in the team's namespace, or in all.
var people = map[string]struct{ role, namespace string }{
	"viewer":     {"pointsman-viewer", team},
	"owner":      {"pointsman-model-owner", team},
	"admin":      {"pointsman-platform-admin", ""},
	"reader":     {"view", team}, // The cluster's own roles, into which ours are aggregated.
	"developer":  {"edit", team},
	"maintainer": {"admin", team},
	"nobody":     {"", ""},
}

func TestMain(m *testing.M) {
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func prepare() error {
	for _, namespace := range []string{team, other} {
		if output, err := kubectl("", "create", "namespace", namespace); err != nil && !strings.Contains(output, "exists") {
			return fmt.Errorf("%s", output)
		}
	}
	for name, person := range people {
		if person.role == "" {
			continue
		}
		args := []string{"create", "clusterrolebinding", name, "--clusterrole=" + person.role, "--user=" + name}
		if person.namespace != "" {
			args[1] = "rolebinding"
			args = append(args, "-n", person.namespace)
		}
		if output, err := kubectl("", args...); err != nil && !strings.Contains(output, "exists") {
			return fmt.Errorf("%s", output)
		}
	}
	// Roles are aggregated by a controller, policies become known to the API server by a watch.
	return eventually(func() error {
		if !can("developer", "create", "httproutes.gateway.networking.k8s.io", team) {
			return fmt.Errorf("the roles are not aggregated yet")
		}
		if output, err := as("admin", team, alpha("InferencePool", `{selector: {}, targetPortNumber: 8000}`)); err == nil {
			return fmt.Errorf("the policies are not in force yet: %s", output)
		}
		return nil
	})
}

const (
	pools      = "inferencepools.inference.networking.k8s.io"
	oldPools   = "inferencepools.inference.networking.x-k8s.io"
	objectives = "inferenceobjectives.inference.networking.x-k8s.io"
	rewrites   = "inferencemodelrewrites.inference.networking.x-k8s.io"
	models     = "inferencemodels.inference.networking.x-k8s.io"
	llmd       = "inferenceobjectives.llm-d.ai"
	gateways   = "gateways.gateway.networking.k8s.io"
	classes    = "gatewayclasses.gateway.networking.k8s.io"
	routes     = "httproutes.gateway.networking.k8s.io"
	grpc       = "grpcroutes.gateway.networking.k8s.io"
	grants     = "referencegrants.gateway.networking.k8s.io"
)

// Who may do what to which kinds, in which namespaces ("" is all).
var rights = []struct {
	who, verbs, kinds, namespace string
	may                          bool
}{
	{"viewer", "get list watch", pools + " " + oldPools + " " + objectives + " " + rewrites + " " + models + " " + llmd + " " + gateways + " " + routes + " " + grants, team, true},
	{"viewer", "create update patch delete", pools + " " + objectives + " " + rewrites + " " + gateways + " " + routes, team, false},
	{"viewer", "get list", pools + " " + objectives + " " + routes, other, false},
	{"viewer", "get", "secrets", team, false},

	{"owner", "get list watch create update patch delete", objectives + " " + rewrites + " " + models + " " + llmd + " " + routes + " " + grpc, team, true},
	{"owner", "get list watch", pools + " " + gateways, team, true},
	{"owner", "create update patch delete", pools + " " + oldPools + " " + gateways + " " + grants, team, false},
	{"owner", "create update patch delete", classes, "", false},
	{"owner", "get create", objectives + " " + routes, other, false},
	{"owner", "update patch", objectives + "/status " + routes + "/status", team, false},
	{"owner", "create get", "secrets pods deployments.apps services", team, false},

	{"admin", "get list watch create update patch delete", pools + " " + oldPools + " " + objectives + " " + rewrites + " " + gateways + " " + routes + " " + grants, other, true},
	{"admin", "get list watch create update patch delete", classes, "", true},
	{"admin", "update patch", gateways + "/status " + pools + "/status", team, false},
	{"admin", "get create", "secrets pods deployments.apps", team, false},

	{"reader", "get list watch", pools + " " + objectives + " " + gateways + " " + routes, team, true},
	{"reader", "create update delete", objectives + " " + routes, team, false},
	{"developer", "create update patch delete", objectives + " " + rewrites + " " + routes, team, true},
	{"developer", "create update patch delete", pools + " " + gateways + " " + grants, team, false},
	{"maintainer", "create update patch delete", objectives + " " + routes, team, true},
	{"maintainer", "create update patch delete", pools + " " + gateways + " " + grants, team, false},
	{"nobody", "get list create", pools + " " + objectives + " " + routes, team, false},

	{controller, "get list watch", pools + " " + oldPools + " " + objectives + " " + rewrites + " " + models + " " + gateways + " " + routes + " " + grants + " pods services endpointslices.discovery.k8s.io configmaps", "", true},
	{controller, "get list watch", classes + " namespaces", "", true},
	{controller, "patch", gateways + "/status " + routes + "/status " + pools + "/status " + objectives + "/status", team, true},
	{controller, "create patch delete", "deployments.apps services serviceaccounts configmaps poddisruptionbudgets.policy", team, true},
	{controller, "create", "leases.coordination.k8s.io secrets", system, true},
	{controller, "get", "secrets/pointsman-controller-ca", system, true},
	{controller, "get list watch update patch delete", "secrets", system, false},
	{controller, "get list watch create", "secrets", team, false},
	{controller, "get list watch create", "secrets", "kube-system", false},
	{controller, "create update patch delete", gateways + " " + routes + " " + pools + " " + objectives, team, false},
	{controller, "create update patch delete", classes, "", false},
	{controller, "create delete patch", "pods nodes pods/exec pods/eviction", team, false},
	{controller, "create patch", "roles.rbac.authorization.k8s.io rolebindings.rbac.authorization.k8s.io statefulsets.apps jobs.batch serviceaccounts/token", team, false},
	{controller, "create update patch", "clusterroles.rbac.authorization.k8s.io clusterrolebindings.rbac.authorization.k8s.io validatingadmissionpolicies.admissionregistration.k8s.io customresourcedefinitions.apiextensions.k8s.io namespaces", "", false},
	{controller, "impersonate", "users groups serviceaccounts", "", false},
}

// All of them are asked at once: a review each.
func TestWhoMayDoWhat(t *testing.T) {
	var reviews strings.Builder
	var asked []string
	var wanted []bool
	for _, right := range rights {
		for _, verb := range strings.Fields(right.verbs) {
			for _, kind := range strings.Fields(right.kinds) {
				reviews.WriteString(review(right.who, verb, kind, right.namespace))
				asked = append(asked, fmt.Sprintf("%s: %s %s in %q", right.who, verb, kind, right.namespace))
				wanted = append(wanted, right.may)
			}
		}
	}
	output, err := kubectl(reviews.String(), "create", "-f", "-", "-o", `jsonpath={.status.allowed}{"\n"}`)
	answers := strings.Fields(output)
	if err != nil || len(answers) != len(asked) {
		t.Fatalf("%d answers to %d questions: %s", len(answers), len(asked), output)
	}
	for i, question := range asked {
		if answers[i] != fmt.Sprint(wanted[i]) {
			t.Errorf("%s: %s", question, answers[i])
		}
	}
	t.Logf("%d rights", len(asked))
}

// A question whether somebody may do something. Kinds are written as `secrets`, `deployments.apps`, `pods/exec`; a
// Secret may be named.
func review(who, verb, kind, namespace string) string {
	kind, part, _ := strings.Cut(kind, "/")
	resource, group, _ := strings.Cut(kind, ".")
	attribute := "subresource"
	if resource == "secrets" {
		attribute = "name"
	}
	groups := "[system:authenticated]"
	if strings.HasPrefix(who, "system:serviceaccount:") {
		groups = "[system:authenticated, system:serviceaccounts]"
	}
	return fmt.Sprintf("---\n{apiVersion: authorization.k8s.io/v1, kind: SubjectAccessReview, spec: {user: %q, groups: %s, "+
		"resourceAttributes: {verb: %s, resource: %s, group: %q, %s: %q, namespace: %q}}}\n",
		who, groups, verb, resource, group, attribute, part, namespace)
}

// What the table says holds for real writes.
func TestAModelOwnerPublishesModelsAndNothingElse(t *testing.T) {
	for _, c := range []struct{ object, refusal string }{
		{alpha("InferenceObjective", `{priority: 5, poolRef: {name: llama}}`), ""},
		{alpha("InferenceModelRewrite", `{poolRef: {name: llama}, rules: [{matches: [{model: {value: a}}], targets: [{modelRewrite: b}]}]}`), ""},
		{route(`{parentRefs: [{name: inference}], rules: [{backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: llama}]}]}`), ""},
		{pool(`{selector: {matchLabels: {app: x}}, targetPorts: [{number: 8000}]}`), "inferencepools.inference.networking.k8s.io is forbidden"},
		{alpha("InferencePool", `{selector: {app: x}, targetPortNumber: 8000}`), "inferencepools.inference.networking.x-k8s.io is forbidden"},
		{object("gateway.networking.k8s.io/v1", "Gateway", `{gatewayClassName: pointsman, listeners: [{name: http, port: 80, protocol: HTTP}]}`), "gateways.gateway.networking.k8s.io is forbidden"},
		{object("gateway.networking.k8s.io/v1", "GatewayClass", `{controllerName: example.com/mine}`), "gatewayclasses.gateway.networking.k8s.io is forbidden"},
	} {
		output, err := as("owner", team, c.object)
		if c.refusal == "" && err != nil {
			t.Errorf("refused: %s", output)
		}
		if c.refusal != "" && (err == nil || !strings.Contains(output, c.refusal)) {
			t.Errorf("not refused with %q: %s", c.refusal, output)
		}
	}
}

func object(version, kind, spec string) string {
	return fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: x}, spec: %s}", version, kind, spec)
}

func alpha(kind, spec string) string {
	return object("inference.networking.x-k8s.io/v1alpha2", kind, spec)
}

func pool(spec string) string { return object("inference.networking.k8s.io/v1", "InferencePool", spec) }

func route(spec string) string { return object("gateway.networking.k8s.io/v1", "HTTPRoute", spec) }

// as creates an object in a namespace without keeping it: authorisation and admission come before.
func as(who, namespace, manifest string) (string, error) {
	return kubectl(manifest, "--as="+who, "-n", namespace, "create", "--dry-run=server", "-f", "-")
}

func can(who, verb, kind, namespace string) bool {
	output, err := kubectl(review(who, verb, kind, namespace), "create", "-f", "-", "-o", "jsonpath={.status.allowed}")
	return err == nil && output == "true"
}

func eventually(check func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func kubectl(input string, args ...string) (string, error) {
	command := exec.Command("testworld", append([]string{"kubectl"}, args...)...)
	command.Stdin = strings.NewReader(input)
	output, err := command.CombinedOutput()
	return strings.TrimSpace(string(output)), err
}
