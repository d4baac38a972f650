package rbac

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What the role allows is enough: the installed controller, under its own account, brings a route to life.
func TestTheControllersRoleSuffices(t *testing.T) {
	manifest, err := os.ReadFile(filepath.Join(os.Getenv("REPOSITORY"), "deploy/guide/llama.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	wait(t, system, "deployment/pointsman-controller", "Available")
	wait(t, "default", "gatewayclass/pointsman", "Accepted")
	if output, err := kubectl(string(manifest), "apply", "-f", "-"); err != nil {
		t.Fatal(output)
	}
	wait(t, "default", "gateway/inference", "Programmed")
	address, err := kubectl("", "get", "gateway", "inference", "-o", "jsonpath={.status.addresses[0].value}")
	if err != nil || address == "" {
		t.Fatalf("no address: %s", address)
	}
	if err := eventually(func() error {
		return ask("http://"+address+"/v1/completions", `{"model":"llama","prompt":"hello","max_tokens":4}`)
	}); err != nil {
		t.Fatal(err)
	}
	for path, wanted := range map[string]string{
		"{.status.parents[0].conditions[?(@.type==\"Accepted\")].status}":     "True",
		"{.status.parents[0].conditions[?(@.type==\"ResolvedRefs\")].status}": "True",
	} {
		for _, kind := range []string{"httproute/llama", pools + "/llama"} {
			if got, err := kubectl("", "get", kind, "-o", "jsonpath="+path); err != nil || got != wanted {
				t.Errorf("%s %s: %s", kind, path, got)
			}
		}
	}
	noneForbidden(t, system, "app.kubernetes.io/component=controller")
}

// Secrets stay closed until a Role says otherwise, and then no restart is needed.
func TestCertificatesOnlyWhereARoleSaysSo(t *testing.T) {
	certificate, key := selfSigned(t)
	objects := fmt.Sprintf(`
{apiVersion: v1, kind: Namespace, metadata: {name: ingress}}
---
{apiVersion: v1, kind: Secret, type: kubernetes.io/tls, metadata: {name: cert, namespace: ingress}, data: {tls.crt: %s, tls.key: %s}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: secure, namespace: ingress}
spec:
  gatewayClassName: pointsman
  listeners: [{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}]
`, certificate, key)
	if output, err := kubectl(objects, "apply", "-f", "-"); err != nil {
		t.Fatal(output)
	}
	resolved := func(wanted string) {
		t.Helper()
		if err := eventually(func() error {
			path := "jsonpath={.status.listeners[0].conditions[?(@.type==\"ResolvedRefs\")].status}"
			if got, _ := kubectl("", "-n", "ingress", "get", "gateway", "secure", "-o", path); got != wanted {
				return fmt.Errorf("ResolvedRefs is %q", got)
			}
			return nil
		}); err != nil {
			status, _ := kubectl("", "-n", "ingress", "get", "gateway", "secure", "-o", "yaml")
			t.Fatalf("%v\n%s", err, status)
		}
	}
	resolved("False")
	for _, args := range [][]string{
		{"create", "role", "certificates", "--verb=get,list,watch", "--resource=secrets"},
		{"create", "rolebinding", "certificates", "--role=certificates", "--serviceaccount=" + system + ":pointsman-controller"},
	} {
		if output, err := kubectl("", append([]string{"-n", "ingress"}, args...)...); err != nil {
			t.Fatal(output)
		}
	}
	resolved("True")
}

// A certificate and its key, as a Secret holds them.
func selfSigned(t *testing.T) (string, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"secure.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	encoded := func(kind string, bytes []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}))
	}
	return encoded("CERTIFICATE", certificate), encoded("PRIVATE KEY", private)
}

func ask(url, body string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(text), "choices") {
		return fmt.Errorf("%d %s %v", response.StatusCode, text, err)
	}
	return nil
}

// The API server refused these Pods nothing: neither by role nor by policy.
func noneForbidden(t *testing.T, namespace, selector string) {
	t.Helper()
	names, err := kubectl("", "-n", namespace, "get", "pods", "-l", selector, "-o", "name")
	if err != nil || names == "" {
		t.Fatalf("no Pods: %s", names)
	}
	for _, name := range strings.Fields(names) {
		log, err := kubectl("", "-n", namespace, "logs", name)
		if err != nil || log == "" {
			t.Fatalf("%s says nothing: %s", name, log)
		}
		for _, line := range strings.Split(log, "\n") {
			if lower := strings.ToLower(line); strings.Contains(lower, "forbidden") || strings.Contains(lower, "denied request") {
				t.Errorf("%s: %s", name, line)
			}
		}
	}
}

func wait(t *testing.T, namespace, object, condition string) {
	t.Helper()
	if output, err := kubectl("", "wait", "-n", namespace, object, "--for=condition="+condition, "--timeout=120s"); err != nil {
		state, _ := kubectl("", "get", "gateways,httproutes,deployments,pods,services,events", "-A", "-o", "wide")
		t.Fatalf("%s\n%s", output, state)
	}
}
