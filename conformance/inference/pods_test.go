package inference

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// How long a Pod's change may take from the API server's word to traffic: soon for most, and for all of them a bound that
// a busy machine keeps too.
const soon, bound = time.Second, 3 * time.Second

const movingHost = "moving.example.com"

// Pods take traffic within a second of being Ready, none after a second of being deleted, and nobody notices a rollout.
func TestPodsComeAndGo(t *testing.T) {
	const app = "moving"
	apply(t, strings.ReplaceAll(movingServer, "APP", app+"-model-server"))
	apply(t, pool("moving-pool", app, ""))
	apply(t, route("moving", "primary", movingHost, rule("/v1/completions", ref("moving-pool", 0, 1))))
	kubectl(t, "rollout", "status", "deploy/"+app+"-model-server", "--timeout=30s")
	address := kubectlIn(t, "inference-infra", "get", "gateway", "primary", "-o", "jsonpath={.status.addresses[0].value}")
	eventually(t, "the pool serves", func() error {
		a, err := complete(address)
		return errors.Join(err, matches(condition{Status: fmt.Sprint(a.Status)}, "200", ""))
	})

	pods := watchPods(t, app+"-model-server")
	traffic := startTraffic(address)
	kubectl(t, "scale", "deploy/"+app+"-model-server", "--replicas=5")
	kubectl(t, "rollout", "status", "deploy/"+app+"-model-server", "--timeout=30s")
	time.Sleep(2 * soon)
	kubectl(t, "rollout", "restart", "deploy/"+app+"-model-server")
	kubectl(t, "rollout", "status", "deploy/"+app+"-model-server", "--timeout=60s")
	time.Sleep(2 * soon)
	answers := traffic.stop()

	ready, deleted := pods()
	first := map[string]time.Time{}
	for _, a := range answers {
		if a.err != nil || a.status != http.StatusOK {
			t.Errorf("a request got %d, %v", a.status, a.err)
			continue
		}
		if known, seen := first[a.pod]; !seen || a.ended.Before(known) {
			first[a.pod] = a.ended
		}
		if at, is := deleted[a.pod]; is && a.began.After(at.Add(soon)) {
			t.Errorf("%s was asked %s after its deletion", a.pod, a.began.Sub(at))
		}
	}
	var late []time.Duration
	for pod, at := range ready {
		answered, is := first[pod]
		if !is {
			t.Errorf("%s was ready and never asked", pod)
			continue
		}
		late = append(late, max(0, answered.Sub(at)))
	}
	slices.Sort(late)
	if len(late) == 0 || late[len(late)/2] > soon || late[len(late)-1] > bound {
		t.Errorf("from ready to the first answer: %v", late)
	}
	if len(ready) < 8 || len(deleted) < 5 {
		t.Errorf("%d Pods came and %d went: too few for a rollout", len(ready), len(deleted))
	}
	t.Logf("%d requests, %d Pods came, %d went; from ready to the first answer: %v", len(answers), len(ready), len(deleted), late)
}

const movingServer = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: APP}
spec:
  replicas: 2
  selector: {matchLabels: {app: APP}}
  template:
    metadata: {labels: {app: APP}}
    spec:
      containers:
      - name: echo
        image: conformance/echo-basic
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: HTTP_PORT, value: "3000"}
        readinessProbe: {httpGet: {path: /, port: 3000}, periodSeconds: 1}
`

type answered struct {
	began, ended time.Time
	status       int
	pod          string
	err          error
}

type traffic struct {
	end     context.CancelFunc
	workers sync.WaitGroup
	lock    sync.Mutex
	answers []answered
}

// startTraffic sends requests from several clients until it is stopped.
func startTraffic(address string) *traffic {
	ctx, end := context.WithCancel(context.Background())
	t := &traffic{end: end}
	for range 8 {
		t.workers.Add(1)
		go func() {
			defer t.workers.Done()
			for ctx.Err() == nil {
				began := time.Now()
				a, err := complete(address)
				t.lock.Lock()
				t.answers = append(t.answers, answered{began, time.Now(), a.Status, a.Pod, err})
				t.lock.Unlock()
				time.Sleep(10 * time.Millisecond)
			}
		}()
	}
	return t
}

func (t *traffic) stop() []answered {
	t.end()
	t.workers.Wait()
	return t.answers
}

// complete sends one completion; no two have the same prompt, so that none is drawn to a server that knows it.
func complete(address string) (answer, error) {
	body := fmt.Sprintf(`{"model":"any","prompt":"%d: say hello.","max_tokens":4}`, time.Now().UnixNano())
	return request{host: movingHost, path: "/v1/completions", body: body}.sendTo(address)
}

// watchPods notes when the API server first said of each Pod that it is ready, and that it is being deleted.
func watchPods(t *testing.T, app string) func() (ready, deleted map[string]time.Time) {
	t.Helper()
	ctx, end := context.WithCancel(context.Background())
	t.Cleanup(end)
	command := exec.CommandContext(ctx, "testworld", "kubectl", "-n", backends, "get", "pods", "-l", "app="+app, "-w", "-o", "json")
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	var lock sync.Mutex
	ready, deleted := map[string]time.Time{}, map[string]time.Time{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		decoder := json.NewDecoder(output)
		for {
			var pod struct {
				Metadata struct{ Name, DeletionTimestamp string }
				Status   struct {
					Conditions []struct{ Type, Status string }
				}
			}
			if decoder.Decode(&pod) != nil {
				return
			}
			lock.Lock()
			note := func(times map[string]time.Time) {
				if _, known := times[pod.Metadata.Name]; !known {
					times[pod.Metadata.Name] = time.Now()
				}
			}
			for _, c := range pod.Status.Conditions {
				if c.Type == "Ready" && c.Status == "True" {
					note(ready)
				}
			}
			if pod.Metadata.DeletionTimestamp != "" {
				note(deleted)
			}
			lock.Unlock()
		}
	}()
	// What is there already must have been told before anything changes.
	time.Sleep(time.Second)
	return func() (map[string]time.Time, map[string]time.Time) {
		end()
		<-done
		_ = command.Wait()
		return ready, deleted
	}
}
