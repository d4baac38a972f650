#!/usr/bin/env bash
# Two copies of the controller and two data planes, in a test world that is up and has both (run.sh controllers).
# Traffic must go on, and later changes must arrive: while the leader is killed without a word, after the API server
# has been away for a minute, and while every data plane is replaced. Usage: controllers.sh GATEWAYCLASS
set -euo pipefail
class=${1:?name the GatewayClass}
kubectl() { testworld kubectl "$@"; }
say() { printf '%s %s\n' "$(date +%T)" "$*"; }

# A route answers with one of two echo servers; changing its weight is a change that traffic shows.
kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Namespace
metadata: {name: scenario}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: scenario}
spec:
  gatewayClassName: $class
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo, namespace: scenario}
spec:
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      containers:
      - name: echo
        image: conformance/echo-basic
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: HTTP_PORT, value: "3000"}
        readinessProbe: {httpGet: {path: /, port: 3000}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: scenario}
spec: {selector: {app: echo}, ports: [{port: 80, targetPort: 3000}]}
YAML

# route PATH: the only path that is served.
route() {
	kubectl apply -f - >/dev/null <<-YAML
		apiVersion: gateway.networking.k8s.io/v1
		kind: HTTPRoute
		metadata: {name: echo, namespace: scenario}
		spec:
		  parentRefs: [{name: web}]
		  rules: [{matches: [{path: {value: $1}}], backendRefs: [{name: echo, port: 80}]}]
	YAML
}

code() { testworld exec -- curl -s -o /dev/null -m 5 -w '%{http_code}' "http://$address$1" || true; }

# await SECONDS PATH CODE
await() {
	local end=$((SECONDS + $1))
	until [ "$(code "$2")" = "$3" ]; do
		[ $SECONDS -lt $end ] || { say "FAIL: $2 did not answer $3 within $1 s"; exit 1; }
		sleep 0.2
	done
}

# Asks for a path all the time, and counts what is not 200.
failures=$TESTWORLD_STATE/failures
asked=$TESTWORLD_STATE/asked
ask() {
	local got
	while :; do
		got=$(code "$1")
		echo "$got" >>"$asked"
		[ "$got" = 200 ] || echo "$(date +%T) $got" >>"$failures"
	done
}
asking=()
begin() { # PATH...
	local path
	: >"$failures"
	: >"$asked"
	for path; do
		ask "$path" &
		asking+=($!)
	done
}
finish_asking() {
	kill "${asking[@]}" 2>/dev/null || true
	wait "${asking[@]}" 2>/dev/null || true
	asking=()
	say "$(wc -l <"$asked") requests, $(wc -l <"$failures") failed"
	[ ! -s "$failures" ] || { cat "$failures"; say "FAIL: requests failed while $1"; exit 1; }
}
stopped=
end() {
	[ ${#asking[@]} -eq 0 ] || kill "${asking[@]}" 2>/dev/null || true
	[ -z "$stopped" ] || kill -CONT "$stopped" 2>/dev/null || true
}
trap end EXIT

route /one
kubectl -n scenario wait --for=condition=Programmed gateway/web --timeout=60s
address=$(kubectl -n scenario get gateway web -o 'jsonpath={.status.addresses[0].value}')
await 30 /one 200
say "web is served at $address by $(kubectl -n scenario get pods -l gateway.networking.k8s.io/gateway-name=web --no-headers | wc -l) data planes"

leader() {
	local holder
	holder=$(kubectl -n pointsman-system get lease pointsman-dev-gateway-controller -o 'jsonpath={.spec.holderIdentity}')
	echo "${holder%_*}"
}
before=$(leader)
begin /one
say "killing the leader, $before"
kubectl -n pointsman-system delete pod "$before" --force --grace-period=0 >/dev/null 2>&1
sleep 2
finish_asking "the leader was killed"
# The other copy tells data planes at once, with or without the Lease.
route /two
await 15 /two 200
say "a change arrived after the leader was killed"
end=$((SECONDS + 40))
until [ "$(leader)" != "$before" ]; do
	[ $SECONDS -lt $end ] || { say "FAIL: nobody took the Lease"; exit 1; }
	sleep 0.5
done
say "the Lease is $(leader)'s"
# Only a leader provisions: a second Gateway gets its data planes.
kubectl apply -f - >/dev/null <<YAML
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: second, namespace: scenario}
spec:
  gatewayClassName: $class
  listeners: [{name: http, port: 80, protocol: HTTP}]
YAML
kubectl -n scenario wait --for=condition=Programmed gateway/second --timeout=60s

away=${AWAY:-60}
stopped=$(testworld status | awk '/apiserver/ {print $3}')
begin /two
say "stopping the API server (pid $stopped) for $away s"
kill -STOP "$stopped"
sleep "$away"
kill -CONT "$stopped"
stopped=
finish_asking "the API server was away"
route /three
await 60 /three 200
say "a change arrived after the API server came back"

# Quick requests on new connections, and slow ones that a data plane still answers when it is told to go.
begin /three '/three?delay=2s' '/three?delay=2s'
planes="-n scenario deployment -l gateway.networking.k8s.io/gateway-name=web"
say "replacing the data planes"
# shellcheck disable=SC2086
kubectl rollout restart $planes
# shellcheck disable=SC2086
kubectl rollout status $planes --timeout=120s
# Until the old ones have said goodbye and ended what they had.
sleep 10
finish_asking "data planes were replaced"

# What belongs to a Gateway goes with it.
kubectl -n scenario delete gateway second >/dev/null
end=$((SECONDS + 60))
until [ -z "$(kubectl -n scenario get deploy,svc,sa,cm,pdb -l gateway.networking.k8s.io/gateway-name=second -o name)" ]; do
	[ $SECONDS -lt $end ] || { say "FAIL: something of the second Gateway is left"; exit 1; }
	sleep 0.5
done
say "what belonged to the second Gateway is gone"
say PASS
