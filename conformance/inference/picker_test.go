package inference

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// The picker's image, where `pointsman epp` itself stands in the place of the test picker.
var pickerImage = os.Getenv("PICKER_IMAGE")

func needsPicker(t *testing.T) {
	if pickerImage == "" {
		t.Skip("PICKER_IMAGE does not name a picker: the test picker runs")
	}
}

// Of two copies one is ready; when it goes the other one takes over.
func TestOneCopyOfAPickerLeads(t *testing.T) {
	needsPicker(t)
	apply(t, strings.NewReplacer("IMAGE", pickerImage).Replace(twoPickers))
	leader := func() string {
		out := kubectl(t, "get", "pods", "-l", "app=ha-picker", "-o",
			`jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status}={.metadata.deletionTimestamp} {end}`)
		ready := []string{}
		running := 0
		for _, line := range strings.Fields(out) {
			if parts := strings.Split(line, "="); parts[2] == "" {
				running++
				if parts[1] == "True" {
					ready = append(ready, parts[0])
				}
			}
		}
		if running != 2 || len(ready) != 1 {
			return ""
		}
		return ready[0]
	}
	await := func(what string, other string) (found string) {
		eventually(t, what, func() error {
			if found = leader(); found == "" || found == other {
				return fmt.Errorf("leader %q", found)
			}
			return nil
		})
		return found
	}
	first := await("one of two copies is ready", "")
	time.Sleep(2 * time.Second)
	if again := leader(); again != first {
		t.Errorf("the leader changed from %s to %q without need", first, again)
	}
	holder := kubectl(t, "get", "lease", "epp-inference-backends-primary-pool.gateway-api-inference-extension.sigs.k8s.io",
		"-o", "jsonpath={.spec.holderIdentity}")
	if !strings.HasPrefix(holder, first+"_") {
		t.Errorf("the Lease is held by %q, not by %s", holder, first)
	}
	kubectl(t, "delete", "pod", first, "--wait=false")
	await("the other copy takes over", first)
}

// Metrics are for those whom the cluster allows them; health is for all.
func TestMetricsOfAPickerAreGuarded(t *testing.T) {
	needsPicker(t)
	apply(t, readers)
	address := kubectl(t, "get", "pods", "-l", "app=primary-picker", "-o", "jsonpath={.items[0].status.podIP}")
	get := func(path, token string) (int, string) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(address, "9090")+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		reply, err := http.DefaultClient.Do(request)
		if err != nil {
			return 0, err.Error()
		}
		defer reply.Body.Close()
		text, _ := io.ReadAll(reply.Body)
		return reply.StatusCode, string(text)
	}
	token := func(account string) string {
		return strings.TrimSpace(kubectl(t, "create", "token", account))
	}
	reader, stranger := token("metrics-reader"), token("stranger")
	for _, c := range []struct {
		path, token string
		status      int
	}{
		{"/healthz", "", 200},
		{"/metrics", "", 401},
		{"/metrics", "no-token-of-this-cluster", 401},
		{"/metrics", stranger, 403},
		{"/metrics", reader, 200},
	} {
		eventually(t, fmt.Sprintf("GET %s gives %d", c.path, c.status), func() error {
			status, text := get(c.path, c.token)
			if status != c.status {
				return fmt.Errorf("%d: %.200s", status, text)
			}
			if c.path == "/metrics" && status == 200 && !strings.Contains(text, "inference_pool_ready_pods") {
				return fmt.Errorf("no metrics of the pool: %.200s", text)
			}
			return nil
		})
	}
}

// A pool may be Pods by their labels, and base models come from ConfigMaps: neither needs an InferencePool.
func TestPickersWithoutAPool(t *testing.T) {
	needsPicker(t)
	apply(t, baseModels)
	selected := strings.NewReplacer("@name", "by-labels", "@image", pickerImage, "@health", "9003",
		"@args", "--endpoint-selector, app=dp-model-server, --endpoint-target-ports, '3000,3002,3004'")
	router := strings.NewReplacer("@name", "body-router", "@image", pickerImage, "@health", "9005", "@args", "--bbr")
	apply(t, selected.Replace(onePicker))
	apply(t, router.Replace(onePicker))
	for _, name := range []string{"by-labels", "body-router"} {
		kubectl(t, "rollout", "status", "deploy/"+name, "--timeout=30s")
	}
	address := kubectl(t, "get", "pods", "-l", "app=by-labels", "-o", "jsonpath={.items[0].status.podIP}")
	eventually(t, "every port of every Pod is an endpoint", func() error {
		reply, err := http.Get("http://" + net.JoinHostPort(address, "9090") + "/readyz")
		if err != nil {
			return err
		}
		defer reply.Body.Close()
		text, err := io.ReadAll(reply.Body)
		if !strings.Contains(string(text), `"ready_endpoints":9,"endpoints":9`) {
			return fmt.Errorf("%s, %v", text, err)
		}
		return nil
	})
}

const onePicker = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: @name}
spec:
  selector: {matchLabels: {app: @name}}
  template:
    metadata: {labels: {app: @name}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: picker
        image: @image
        args: [epp, @args]
        env:
        - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        readinessProbe: {grpc: {port: @health, service: readiness}, periodSeconds: 1}
`

const baseModels = `
apiVersion: v1
kind: ConfigMap
metadata:
  name: base-models
  namespace: inference-backends
  labels: {inference-gateway.k8s.io/managed: "true"}
data: {baseModel: llama-3, adapters: "- tuned"}
`

const twoPickers = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: ha-picker}
spec:
  replicas: 2
  selector: {matchLabels: {app: ha-picker}}
  template:
    metadata: {labels: {app: ha-picker}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: picker
        image: IMAGE
        args: [epp, --pool-name, primary-pool, --pool-namespace, $(NAMESPACE), --ha-enable-leader-election]
        env:
        - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        readinessProbe: {grpc: {port: 9003, service: readiness}, periodSeconds: 1}
`

const readers = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: metrics-reader, namespace: inference-backends}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: stranger, namespace: inference-backends}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: picker-metrics-reader}
rules: [{nonResourceURLs: [/metrics], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: picker-metrics-reader}
subjects: [{kind: ServiceAccount, name: metrics-reader, namespace: inference-backends}]
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: picker-metrics-reader}
`
