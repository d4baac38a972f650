package inference

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The program under test, for the tests that stop and kill copies of it; without it the weather is not tested.
var program = os.Getenv("WEATHER_PROGRAM")

const infra = "inference-infra"

func needsProgram(t *testing.T) {
	if program == "" {
		t.Skip("WEATHER_PROGRAM does not name the program under test")
	}
}

// Traffic goes on while the API server is away, and what changes later is seen.
func TestWeatherAPIServerAway(t *testing.T) {
	needsProgram(t)
	away := 30 * time.Second
	if text := os.Getenv("AWAY"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		away = time.Duration(seconds) * time.Second
	}
	apply(t, route("away", "primary", "away.example.com", rule("/away", ref("primary-pool", 0, 1))))
	asked := call{address: addressOf(t, infra, "primary"), host: "away.example.com", path: "/away"}
	eventually(t, "the route answers", asked.gives(200))
	server, _ := apiServer(t)
	load := asked.often()
	signal(t, server, syscall.SIGSTOP)
	t.Cleanup(func() { _ = syscall.Kill(server, syscall.SIGCONT) })
	time.Sleep(away)
	signal(t, server, syscall.SIGCONT)
	load.all(t, 200)
	apply(t, route("back", "primary", "back.example.com", rule("/back", ref("secondary-pool", 0, 1))))
	serves(t, request{gateway: "primary", host: "back.example.com", path: "/back"}, "secondary")
}

// A gateway that was out of touch for so long that its place is forgotten (410) lists anew: what came is there, and what
// went is gone, although nobody tells it of the deletion any more.
func TestWeatherForgottenPlace(t *testing.T) {
	needsProgram(t)
	const controller = "weather.example/forgotten"
	applyIn(t, infra, classAndGateway("forgotten", controller, ""))
	gateway := startGateway(t, "forgotten", controller, "10.245.0.160-10.245.0.164")
	apply(t, route("lost", "forgotten", "", rule("/lost", ref("primary-pool", 0, 1))))
	apply(t, route("stays", "primary", "stays.example.com", rule("/stays", ref("primary-pool", 0, 1))))
	address := awaitAddress(t, infra, "forgotten")
	lost, found := call{address: address, path: "/lost"}, call{address: address, path: "/found"}
	eventually(t, "the gateway serves", lost.gives(200))

	stays := call{address: addressOf(t, infra, "primary"), host: "stays.example.com", path: "/stays"}
	eventually(t, "the other gateway serves", stays.gives(200))
	load := stays.often()
	signal(t, gateway.Process.Pid, syscall.SIGSTOP)
	// Once for the connections, in which the news would wait for the gateway, and once for the server's own memory.
	restartAPIServer(t)
	kubectl(t, "delete", "httproute", "lost")
	apply(t, route("found", "forgotten", "", rule("/found", ref("secondary-pool", 0, 1))))
	compact(t)
	restartAPIServer(t)
	signal(t, gateway.Process.Pid, syscall.SIGCONT)
	eventually(t, "what went is gone", lost.gives(404))
	eventually(t, "what came is there", found.gives(200))
	load.all(t, 200)
}

// A pool that is deleted costs its share of a rule, and no more; it comes back with its object.
func TestWeatherPoolDeleted(t *testing.T) {
	needsProgram(t)
	apply(t, pool("kept", "primary", ""))
	doomed := apply(t, pool("doomed", "secondary", ""))
	apply(t, route("doomed", "primary", "doomed.example.com", rule("/", ref("kept", 0, 1), ref("doomed", 0, 1))))
	asked := call{address: addressOf(t, infra, "primary"), host: "doomed.example.com", path: "/"}
	eventually(t, "both pools answer", asked.shares("primary", "secondary"))
	load := asked.often()
	time.Sleep(time.Second)
	remove(t, doomed)
	eventually(t, "its share fails", asked.gives(500, 503))
	gone := time.Now()
	routeCondition(t, "doomed", "ResolvedRefs", "False", "BackendNotFound")
	time.Sleep(2 * time.Second)
	back := time.Now()
	pipe(t, doomed, "apply")
	eventually(t, "both pools answer again", asked.shares("primary", "secondary"))
	healed := time.Now()
	time.Sleep(time.Second)
	failed, total := 0, 0
	for _, a := range load.stop() {
		switch within := a.began.After(gone) && a.ended.Before(back); {
		case a.err != nil || !slices.Contains([]int{200, 500, 503}, a.status):
			t.Errorf("a request got %d, %v", a.status, a.err)
		case a.status != 200 && a.began.After(healed):
			t.Errorf("a request got %d after the pool was back", a.status)
		case within:
			total++
			if a.status != 200 {
				failed++
			} else if strings.HasPrefix(a.pod, "secondary") {
				t.Errorf("%s answered for a pool that was gone", a.pod)
			}
		}
	}
	if share := float64(failed) / float64(max(total, 1)); total < 100 || share < 0.35 || share > 0.65 {
		t.Errorf("%d of %d requests failed while half of the rule was gone", failed, total)
	}
}

// A grant that is revoked ends what it allowed, says so, and harms nothing else.
func TestWeatherGrantRevoked(t *testing.T) {
	needsProgram(t)
	const from = "weather-routes"
	applyIn(t, "default", "{apiVersion: v1, kind: Namespace, metadata: {name: "+from+"}}")
	grant := apply(t, `{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: weather}, spec: {
		from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: `+from+`}],
		to: [{group: inference.networking.k8s.io, kind: InferencePool}]}}`)
	foreign := strings.Replace(ref("primary-pool", 0, 1), "{", "{namespace: "+backends+", ", 1)
	applyIn(t, from, route("granted", "primary", "granted.example.com", rule("/granted", foreign)))
	apply(t, route("bystander", "primary", "bystander.example.com", rule("/bystander", ref("primary-pool", 0, 1))))
	address := addressOf(t, infra, "primary")
	granted := call{address: address, host: "granted.example.com", path: "/granted"}
	bystander := call{address: address, host: "bystander.example.com", path: "/bystander"}
	eventually(t, "the grant lets through", granted.gives(200))
	eventually(t, "the other route answers", bystander.gives(200))
	load, others := granted.often(), bystander.often()
	remove(t, grant)
	eventually(t, "nothing gets through", granted.gives(500))
	reason := `jsonpath={.status.parents[0].conditions[?(@.type=="ResolvedRefs")].reason}`
	eventually(t, "the route says why", func() error {
		if got := kubectlIn(t, from, "get", "httproute", "granted", "-o", reason); got != "RefNotPermitted" {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	revoked := time.Now()
	time.Sleep(time.Second)
	again := time.Now()
	pipe(t, grant, "apply")
	eventually(t, "the grant lets through again", granted.gives(200))
	for _, a := range load.stop() {
		if a.err != nil || a.status != 200 && a.status != 500 {
			t.Errorf("a request got %d, %v", a.status, a.err)
		}
		if a.status == 200 && a.began.After(revoked) && a.ended.Before(again) {
			t.Errorf("%s answered without a grant", a.pod)
		}
	}
	others.all(t, 200)
}

// A listener whose Secret goes says so; its neighbour serves on, and it comes back with the Secret.
func TestWeatherSecretRemoved(t *testing.T) {
	needsProgram(t)
	secret := tlsSecret(t, "weather-tls", "tls.example.com")
	applyIn(t, infra, secret)
	applyIn(t, infra, `{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: sealed}, spec: {
		gatewayClassName: `+kubectlIn(t, infra, "get", "gateway", "primary", "-o", "jsonpath={.spec.gatewayClassName}")+`, listeners: [
		{name: plain, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}},
		{name: sealed, port: 443, protocol: HTTPS, allowedRoutes: {namespaces: {from: All}}, tls: {certificateRefs: [{name: weather-tls}]}}]}}`)
	apply(t, route("sealed", "sealed", "tls.example.com", rule("/sealed", ref("primary-pool", 0, 1))))
	plain := call{address: awaitAddress(t, infra, "sealed"), host: "tls.example.com", path: "/sealed"}
	sealed := plain
	sealed.tls = true
	eventually(t, "TLS is served", sealed.gives(200))
	eventually(t, "plain HTTP is served", plain.gives(200))
	load := plain.often()
	kubectlIn(t, infra, "delete", "secret", "weather-tls")
	listener := func(kind, status, reason string) {
		t.Helper()
		path := fmt.Sprintf(`jsonpath={.status.listeners[?(@.name=="sealed")].conditions[?(@.type=="%s")]}`, kind)
		eventually(t, fmt.Sprintf("%s of the listener is %s %s", kind, status, reason), func() error {
			got := condition{}
			if err := json.Unmarshal([]byte(kubectlIn(t, infra, "get", "gateway", "sealed", "-o", path)), &got); err != nil {
				return err
			}
			return matches(got, status, reason)
		})
	}
	listener("ResolvedRefs", "False", "InvalidCertificateRef")
	listener("Programmed", "False", "")
	eventually(t, "TLS is not served", func() error {
		if a := sealed.ask(); a.err == nil {
			return fmt.Errorf("status %d", a.status)
		}
		return nil
	})
	pipeIn(t, infra, secret, "apply")
	listener("Programmed", "True", "")
	eventually(t, "TLS is served again", sealed.gives(200))
	load.all(t, 200)
}

// Of two copies one writes statuses; when it is killed without a word the other takes over within the Lease's time.
func TestWeatherTwoCopies(t *testing.T) {
	needsProgram(t)
	const controller = "weather.example/twins"
	applyIn(t, infra, classAndGateway("twins", controller, ""))
	apply(t, route("twins", "twins", "", rule("/twins", ref("primary-pool", 0, 1))))
	ranges := map[string]string{"castor": "10.245.0.165-10.245.0.169", "pollux": "10.245.0.170-10.245.0.174"}
	copies := map[string]*exec.Cmd{}
	for name, addresses := range ranges {
		copies[name] = startGateway(t, name, controller, addresses)
	}
	address := awaitAddress(t, infra, "twins")
	asked := call{address: address, path: "/twins"}
	eventually(t, "the gateway serves", asked.gives(200))
	holder := func() string {
		lease := kubectlIn(t, "default", "get", "lease", "weather-example-twins", "-o", "jsonpath={.spec.holderIdentity}")
		name, _, _ := strings.Cut(lease, "_")
		return name
	}
	first := holder()
	second := map[string]string{"castor": "pollux", "pollux": "castor"}[first]
	if second == "" {
		t.Fatalf("the Lease is held by %q", first)
	}
	version := func() string {
		return kubectlIn(t, infra, "get", "gateway", "twins", "-o", "jsonpath={.metadata.resourceVersion}")
	}
	time.Sleep(3 * time.Second)
	before := version()
	time.Sleep(5 * time.Second)
	if after := version(); after != before {
		t.Errorf("two copies write in turns: version %s became %s", before, after)
	}
	if err := copies[first].Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	// A change that only a writer can answer for.
	apply(t, route("orphan", "twins", "", rule("/orphan", ref("secondary-pool", 0, 1))))
	eventually(t, "the other copy holds the Lease", func() error {
		if got := holder(); got != second {
			return fmt.Errorf("held by %q", got)
		}
		return nil
	})
	if took := time.Since(killed); took > 20*time.Second {
		t.Errorf("the Lease counts 15 s and was taken over after %s", took)
	}
	routeCondition(t, "orphan", "Accepted", "True", "Accepted")
	eventually(t, "the Gateway has an address of the copy that lives", func() error {
		asked.address, asked.path = addressOf(t, infra, "twins"), "/orphan"
		return asked.gives(200)()
	})
}

// Where nothing changes nothing is written.
func TestWeatherNothingChanges(t *testing.T) {
	needsProgram(t)
	apply(t, route("quiet", "primary", "quiet.example.com", rule("/quiet", ref("primary-pool", 0, 1), ref("no-such-pool", 0, 0))))
	asked := call{address: addressOf(t, infra, "primary"), host: "quiet.example.com", path: "/quiet"}
	eventually(t, "the route answers", asked.gives(200))
	versions := func() string {
		return kubectl(t, "get", "gatewayclasses,gateways,httproutes,inferencepools", "-A", "-o",
			`jsonpath={range .items[*]}{.kind}/{.metadata.name}={.metadata.resourceVersion}{"\n"}{end}`)
	}
	time.Sleep(5 * time.Second) // for what earlier tests left to be cleared
	load := asked.often()
	before := versions()
	time.Sleep(30 * time.Second)
	if after := versions(); after != before {
		t.Errorf("written without need:\n%s\nbecame\n%s", before, after)
	}
	load.all(t, 200)
}

// A client cannot choose a server, neither past a picker nor where the gateway itself picks.
func TestWeatherForgedDestination(t *testing.T) {
	needsProgram(t)
	apply(t, pool("unpicked", "primary", ""))
	apply(t, route("forged", "primary", "forged.example.com",
		rule("/picked", ref("primary-pool", 0, 1)), rule("/unpicked", ref("unpicked", 0, 1)), rule("/open", ref("secondary-pool", 0, 1))))
	address := addressOf(t, infra, "primary")
	victims := podsOf(t, "appprotocol")
	for path, app := range map[string]string{"/picked": "primary", "/unpicked": "primary", "/open": "secondary"} {
		asked := call{address: address, host: "forged.example.com", path: path}
		eventually(t, path+" answers", asked.gives(200))
		for victim := range victims {
			endpoint := net.JoinHostPort(victim, "3000")
			asked.headers = map[string]string{
				"x-gateway-destination-endpoint":        endpoint,
				"x-gateway-destination-endpoint-served": endpoint,
				"x-gateway-destination-endpoint-subset": endpoint,
			}
			for range 10 {
				a := asked.ask()
				if a.err != nil || a.status != 200 || !strings.HasPrefix(a.pod, app+"-model-server") {
					t.Errorf("%s with forged headers: %d from %q, %v", path, a.status, a.pod, a.err)
				}
				if slices.Contains(a.header.Values(servedHeader), endpoint) {
					t.Errorf("%s: the client's word is reported as what served", path)
				}
			}
		}
	}
}

// Redirects and preflights are answered before a pool; other requests of the same route go to it.
func TestWeatherFiltersBesidePools(t *testing.T) {
	needsProgram(t)
	const redirect = `{matches: [{path: {type: PathPrefix, value: /old}}], filters: [{type: RequestRedirect, requestRedirect: {
		path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}, statusCode: 301}}]}`
	cors := strings.Replace(rule("/cors", ref("primary-pool", 0, 1)), "{",
		`{filters: [{type: CORS, cors: {allowOrigins: ["https://app.example.com"], allowMethods: [POST], maxAge: 60}}], `, 1)
	apply(t, route("filters", "primary", "filters.example.com", redirect, rule("/new", ref("primary-pool", 0, 1)), cors))
	asked := call{address: addressOf(t, infra, "primary"), host: "filters.example.com", path: "/new/a"}
	eventually(t, "the pool answers", asked.gives(200))
	asked.path = "/old/a"
	if a := asked.ask(); a.status != 301 || !strings.HasSuffix(a.header.Get("Location"), "/new/a") || len(a.header.Values(servedHeader)) != 0 {
		t.Errorf("a redirect gave %d, %v, %v", a.status, a.header, a.err)
	}
	asked.path, asked.method = "/cors", http.MethodOptions
	asked.headers = map[string]string{"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
	a := asked.ask()
	if a.status/100 != 2 || a.pod != "" || a.header.Get("Access-Control-Allow-Origin") != "https://app.example.com" {
		t.Errorf("a preflight gave %d from %q, %v, %v", a.status, a.pod, a.header, a.err)
	}
	for address, pod := range podsOf(t, "primary") {
		asked.method, asked.headers = http.MethodPost, map[string]string{"Origin": "https://app.example.com", wishHeader: address}
		a := asked.ask()
		served := a.header.Values(servedHeader)
		if a.status != 200 || a.pod != pod || !slices.Equal(served, []string{address + ":3000"}) ||
			!slices.Equal(a.header.Values("Access-Control-Allow-Origin"), []string{"https://app.example.com"}) {
			t.Errorf("a request across origins, for %s: %d from %q, %v, %v", pod, a.status, a.pod, a.header, a.err)
		}
	}
}

// Of a Service and a pool in one rule only the pool asks its picker.
func TestWeatherServiceBesidePool(t *testing.T) {
	needsProgram(t)
	apply(t, `{apiVersion: v1, kind: Service, metadata: {name: beside}, spec: {selector: {app: secondary-model-server}, ports: [{port: 80, targetPort: 3000}]}}`)
	apply(t, route("beside", "primary", "beside.example.com", rule("/beside", ref("primary-pool", 0, 1), "{name: beside, port: 80, weight: 1}")))
	address := addressOf(t, infra, "primary")
	pods := podsOf(t, "primary")
	asked := call{address: address, host: "beside.example.com", path: "/beside"}
	eventually(t, "both answer", asked.shares("primary", "secondary"))
	for wish, pod := range pods {
		asked.headers = map[string]string{wishHeader: wish}
		for range 20 {
			a := asked.ask()
			served := a.header.Values(servedHeader)
			switch {
			case a.err != nil || a.status != 200:
				t.Errorf("%d, %v", a.status, a.err)
			case strings.HasPrefix(a.pod, "secondary"):
				if len(served) != 0 {
					t.Errorf("the Service's %s is reported as picked: %v", a.pod, served)
				}
			case a.pod != pod || !slices.Equal(served, []string{wish + ":3000"}):
				t.Errorf("%s answered for a wish of %s, and %v is reported", a.pod, pod, served)
			}
		}
	}
}

// Each pool of a weighted rule asks its own picker, and the answer says which server that one chose; rules of the same name
// in two routes do not mix.
func TestWeatherEachPoolAsksItsPicker(t *testing.T) {
	needsProgram(t)
	named := func(path string, refs ...string) string {
		return strings.Replace(rule(path, refs...), "{", "{name: one, ", 1)
	}
	apply(t, route("attributed", "primary", "attributed.example.com", named("/weights", ref("primary-pool", 0, 1), ref("secondary-pool", 0, 1))))
	apply(t, route("same-name", "primary", "same-name.example.com", named("/weights", ref("secondary-pool", 0, 1))))
	address := addressOf(t, infra, "primary")
	asked := call{address: address, host: "attributed.example.com", path: "/weights"}
	eventually(t, "both pools answer", asked.shares("primary", "secondary"))
	wishes := map[string]string{} // the Pod by the endpoint that is wished for, one of each pool
	for _, app := range []string{"primary", "secondary"} {
		for ip, pod := range podsOf(t, app) {
			wishes[ip+":3000"] = pod
			break
		}
	}
	var ips []string
	for endpoint := range wishes {
		ips = append(ips, strings.TrimSuffix(endpoint, ":3000"))
	}
	asked.headers = map[string]string{wishHeader: strings.Join(ips, ",")}
	seen := map[string]int{}
	for range 60 {
		a := asked.ask()
		served := a.header.Values(servedHeader)
		if a.err != nil || a.status != 200 || len(served) != 1 || wishes[served[0]] != a.pod {
			t.Errorf("%d from %q, reported %v, %v", a.status, a.pod, served, a.err)
			continue
		}
		seen[a.pod]++
	}
	if len(seen) != 2 {
		t.Errorf("answers came from %v: both pools have a share", seen)
	}
	serves(t, request{gateway: "primary", host: "same-name.example.com", path: "/weights"}, "secondary")
}

// call is a request with everything that can be forged.
type call struct {
	address, method, host, path string
	headers                     map[string]string
	tls                         bool
}

// outcome is what came of a call.
type outcome struct {
	answered
	header http.Header
}

func (c call) ask() (got outcome) {
	got.began = time.Now()
	defer func() { got.ended = time.Now() }()
	scheme, port, body := "http", "80", ""
	if c.tls {
		scheme, port = "https", "443"
	}
	method := c.method
	if method == "" {
		method = http.MethodGet
	}
	if method == http.MethodPost || c.headers[wishHeader] != "" {
		method, body = http.MethodPost, completion
	}
	message, err := http.NewRequest(method, scheme+"://"+net.JoinHostPort(c.address, port)+c.path, strings.NewReader(body))
	if err != nil {
		got.err = err
		return got
	}
	message.Host, message.Close = c.host, true
	for name, value := range c.headers {
		message.Header.Set(name, value)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{ServerName: c.host, InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Timeout: 10 * time.Second, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	reply, err := client.Do(message)
	if err != nil {
		got.err = err
		return got
	}
	defer reply.Body.Close()
	got.status, got.header = reply.StatusCode, reply.Header
	text, err := io.ReadAll(reply.Body)
	got.err = err
	said := answer{}
	if json.Unmarshal(text, &said) == nil {
		got.pod = said.Pod
	}
	return got
}

// gives checks that the next answer has one of the statuses.
func (c call) gives(statuses ...int) func() error {
	return func() error {
		if a := c.ask(); a.err != nil || !slices.Contains(statuses, a.status) {
			return fmt.Errorf("status %d, %v", a.status, a.err)
		}
		return nil
	}
}

// shares checks that each of the apps answers some of the next requests, and nobody else any.
func (c call) shares(apps ...string) func() error {
	return func() error {
		seen := map[string]bool{}
		for range 20 {
			a := c.ask()
			app, _, _ := strings.Cut(a.pod, "-model-server")
			if a.err != nil || a.status != 200 || !slices.Contains(apps, app) {
				return fmt.Errorf("status %d from %q, %v", a.status, a.pod, a.err)
			}
			seen[app] = true
		}
		if len(seen) != len(apps) {
			return fmt.Errorf("only %v answer", seen)
		}
		return nil
	}
}

// load is a call that is made all the time.
type load struct {
	done    chan struct{}
	workers sync.WaitGroup
	lock    sync.Mutex
	answers []outcome
}

func (c call) often() *load {
	l := &load{done: make(chan struct{})}
	for range 4 {
		l.workers.Add(1)
		go func() {
			defer l.workers.Done()
			for {
				select {
				case <-l.done:
					return
				case <-time.After(20 * time.Millisecond):
				}
				a := c.ask()
				l.lock.Lock()
				l.answers = append(l.answers, a)
				l.lock.Unlock()
			}
		}()
	}
	return l
}

func (l *load) stop() []outcome {
	close(l.done)
	l.workers.Wait()
	return l.answers
}

// all ends the load and wants this status of every answer.
func (l *load) all(t *testing.T, status int) {
	t.Helper()
	answers := l.stop()
	for _, a := range answers {
		if a.err != nil || a.status != status {
			t.Errorf("a request got %d, %v", a.status, a.err)
		}
	}
	if len(answers) < 20 {
		t.Errorf("only %d requests: no load", len(answers))
	}
	t.Logf("%d requests", len(answers))
}

// startGateway starts a copy of the program for the length of the test.
func startGateway(t *testing.T, name, controller, addresses string) *exec.Cmd {
	t.Helper()
	log, err := os.Create(filepath.Join(os.Getenv("TESTWORLD_STATE"), "log", name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program, "serve", "--kubernetes", "--controller-name", controller,
		"--addresses", addresses, "--admin", "127.0.0.1:0", "--drain-timeout", "1s")
	command.Env = append(os.Environ(), "HOSTNAME="+name)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		_ = log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("the log of %s:\n%s", name, text)
		}
	})
	return command
}

func classAndGateway(name, controller, more string) string {
	return fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: %[1]s}
spec: {controllerName: %[2]s}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: %[1]s}
spec: {gatewayClassName: %[1]s, listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}%[3]s}]}
`, name, controller, more)
}

func tlsSecret(t *testing.T, name, host string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
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
	return fmt.Sprintf(`{apiVersion: v1, kind: Secret, type: kubernetes.io/tls, metadata: {name: %s}, data: {tls.crt: %s, tls.key: %s}}`,
		name, encoded("CERTIFICATE", certificate), encoded("PRIVATE KEY", private))
}

func addressOf(t *testing.T, namespace, gateway string) string {
	t.Helper()
	return kubectlIn(t, namespace, "get", "gateway", gateway, "-o", "jsonpath={.status.addresses[0].value}")
}

func awaitAddress(t *testing.T, namespace, gateway string) (address string) {
	t.Helper()
	eventually(t, "Gateway "+gateway+" has an address", func() error {
		if address = addressOf(t, namespace, gateway); address == "" {
			return fmt.Errorf("none")
		}
		return nil
	})
	return address
}

func applyIn(t *testing.T, namespace, manifest string) {
	t.Helper()
	pipeIn(t, namespace, manifest, "apply")
	t.Cleanup(func() { pipeIn(t, namespace, manifest, "delete", "--ignore-not-found", "--wait=false") })
}

func pipeIn(t *testing.T, namespace, manifest string, args ...string) {
	t.Helper()
	command := exec.Command("testworld", append([]string{"kubectl", "-n", namespace}, append(args, "-f", "-")...)...)
	command.Stdin = strings.NewReader(manifest)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// apiServer is the world's API server: its process, and how it was started.
func apiServer(t *testing.T) (int, []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		text, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		argv := strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
		if len(argv) > 2 && argv[1] == "kube-apiserver" && strings.Contains(string(text), os.Getenv("TESTWORLD_STATE")) {
			if pid, err := strconv.Atoi(entry.Name()); err == nil {
				return pid, argv
			}
		}
	}
	t.Fatal("no API server runs in this world")
	return 0, nil
}

// restartAPIServer kills it and starts it again: what it had in memory of the past is lost. It outlives the test.
func restartAPIServer(t *testing.T) {
	t.Helper()
	pid, argv := apiServer(t)
	log, err := os.Create(filepath.Join(os.Getenv("TESTWORLD_STATE"), "log", "kube-apiserver-again.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	signal(t, pid, syscall.SIGKILL)
	eventually(t, "the API server's port is free", func() error {
		connection, err := net.DialTimeout("tcp", "10.245.0.1:6443", time.Second)
		if err == nil {
			_ = connection.Close()
			return fmt.Errorf("somebody answers")
		}
		return nil
	})
	command := exec.Command(argv[0], argv[1:]...)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = command.Wait() }() // so that it does not stay as a zombie when it is killed in turn
	adopt(t, pid, command.Process.Pid)
	eventually(t, "the API server is back", func() error {
		out, err := exec.Command("testworld", "kubectl", "get", "--raw", "/readyz").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}

// adopt writes a new process of the world's into its state in the place of the old one.
func adopt(t *testing.T, old, pid int) {
	t.Helper()
	path := filepath.Join(os.Getenv("TESTWORLD_STATE"), "world.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	world := map[string]any{}
	if err := json.Unmarshal(text, &world); err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// The start time is field 22; the second one is a name in brackets and may have blanks.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	processes, _ := world["processes"].([]any)
	for _, one := range processes {
		if process, is := one.(map[string]any); is && process["pid"] == float64(old) {
			process["pid"], process["started"] = pid, fields[19]
		}
	}
	if text, err = json.Marshal(world); err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// compact makes etcd forget everything but the present.
func compact(t *testing.T) {
	t.Helper()
	ask := func(path, body string) (reply struct {
		Header struct{ Revision string }
	}) {
		answer, err := http.Post("http://127.0.0.1:2379/v3/kv/"+path, "application/json", bytes.NewBufferString(body))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if err := json.NewDecoder(answer.Body).Decode(&reply); err != nil || answer.StatusCode != 200 {
			t.Fatalf("etcd: %s: %d, %v", path, answer.StatusCode, err)
		}
		return reply
	}
	now := ask("range", `{"key":"AA=="}`).Header.Revision
	ask("compaction", `{"revision":"`+now+`","physical":true}`)
}

func signal(t *testing.T, pid int, what syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, what); err != nil {
		t.Fatalf("%v to process %d: %v", what, pid, err)
	}
}
