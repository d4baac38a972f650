#!/usr/bin/env bash
# Runs a suite against pointsman in a small real cluster of its own, and takes everything away again.
#   conformance/run.sh SUITE [FLAG...]    flags go to the suite's test program, such as -run-test NAME or -test.run NAME
#
#   gatewayapi   the Gateway API's official suite: core of GATEWAY-HTTP
#   extended     the same with every optional feature that is claimed (routing::SUPPORTED_FEATURES), GATEWAY-GRPC and GATEWAY-TLS
#   inference    InferencePools, endpoint pickers, Pods that come and go
#   inference-epp
#                the same with `pointsman epp` as every pool's picker, and tests of it: copies that compete, metrics that are guarded
#   gatewayapi-pods, extended-pods, inference-pods
#                the same through `pointsman controller`: it provisions data planes as Pods, each Gateway behind a Service
#   controllers  two copies of the controller: one killed, the API server away; traffic and later changes go on
#   weather      the API server away, restarted and forgetful; pools, grants and Secrets removed under load; copies killed;
#                headers forged; filters, Services and several pools in one route
#   crds         the custom resource definitions of config/crd
#   install      deploy/install.yaml as it is applied: who may do what, what admission refuses, Pods under their own accounts
#   guide        docs/guide-kubernetes.md, command by command
#   chart        the Helm charts, linted and rendered; needs Go alone
#   selftest     the test world itself
#
# Everything happens in network namespaces made for it. Needs Linux, root, Go and iproute2; says so and exits with 77
# where one of them is missing. Environment:
#   POINTSMAN   the program under test; built (release) where it is not set
#   CACHE       what is built and kept between runs     (~/.cache/pointsman-conformance)
#   REPORTS     where reports and logs go               ($CACHE/reports)
#   LIMIT       seconds until a suite is ended          (1800)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
suite=${1:?name a suite, as this file begins with}
shift
CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pointsman-conformance}
REPORTS=${REPORTS:-$CACHE/reports}
LIMIT=${LIMIT:-1800}
class=pointsman

missing() { echo "SKIPPED: $*" >&2; exit 77; }
if [ "$suite" = chart ]; then
	command -v go >/dev/null || missing "the charts are rendered by a program in Go"
	cd "$here/chart" && exec go test -count=1 . "$@"
fi

[ "$(uname -s)" = Linux ] || missing "the test world needs Linux"
[ "$(id -u)" = 0 ] || missing "the test world needs root for network namespaces"
for tool in go ip mount; do command -v "$tool" >/dev/null || missing "the test world needs $tool"; done

# The world is built anew when its sources have changed.
bin=$CACHE/bin
stamp=$(cd "$here" && find . -type f \( -name '*.go' -o -name 'go.*' -o -name '*.yaml' -o -name build.sh \) -print0 |
	sort -z | xargs -0 sha256sum | sha256sum | cut -c1-32)
mkdir -p "$bin" "$REPORTS"
if [ "$(cat "$bin/stamp" 2>/dev/null)" != "$stamp" ]; then
	echo "building the test world into $bin (minutes, the first time)"
	"$here/build.sh" "$bin"
	echo "$stamp" >"$bin/stamp"
fi

gateway=${POINTSMAN:-}
if [ -z "$gateway" ] && [ "$suite" != crds ] && [ "$suite" != selftest ]; then
	(cd "$here/.." && cargo build --release --package pointsman)
	gateway=${CARGO_TARGET_DIR:-$here/../target}/release/pointsman
fi

# Data planes in Pods: the gateway's program stands for its image.
pods=
case $suite in
*-pods | controllers) pods=1 ;;
esac
images=$bin/images.yaml

TESTWORLD_STATE=$(mktemp -d "${TMPDIR:-/tmp}/testworld.XXXXXX")
export TESTWORLD_STATE PATH=$bin:$PATH
serving=
finish() {
	local code=$?
	trap - EXIT INT TERM
	if [ -n "$pods" ]; then
		testworld kubectl -n pointsman-system logs -l app=pointsman-controller --prefix --tail=-1 \
			>"$REPORTS/$suite-gateway.log" 2>&1 || true
	fi
	[ -z "$serving" ] || { kill "$serving" && wait "$serving"; } 2>/dev/null || true
	# This ends whatever else runs in the world.
	testworld down || true
	rm -rf "$TESTWORLD_STATE"
	exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM
if [ -n "$pods" ] || [[ $suite =~ ^(inference-epp|install|guide)$ ]]; then
	images=$TESTWORLD_STATE/images.yaml
	cp "$bin/images.yaml" "$images"
	printf '  - match: "*pointsman/pointsman*"\n    argv: ["%s"]\n' "$(realpath "$gateway")" >>"$images"
fi
testworld up --images "$images"

provision() { # the controller, its class, and REPLICAS data planes for each Gateway
	sed "s/REPLICAS/$1/" "$here/controller.yaml" | testworld kubectl apply -f - >/dev/null
	testworld kubectl apply -f - <<-YAML
		apiVersion: gateway.networking.k8s.io/v1
		kind: GatewayClass
		metadata: {name: $class}
		spec:
		  controllerName: pointsman.dev/gateway-controller
		  parametersRef: {group: "", kind: ConfigMap, name: data-planes, namespace: pointsman-system}
	YAML
	testworld kubectl -n pointsman-system rollout status deploy/pointsman-controller --timeout=60s
}

serve() { # the gateway under test, and its class
	if [ -n "$pods" ]; then
		provision "${REPLICAS:-2}"
		return
	fi
	testworld kubectl apply -f - <<-YAML
		apiVersion: gateway.networking.k8s.io/v1
		kind: GatewayClass
		metadata: {name: $class}
		spec: {controllerName: pointsman.dev/gateway-controller}
	YAML
	testworld exec -- "$gateway" serve --kubernetes --addresses 10.245.0.2-10.245.0.199 \
		--drain-timeout 5s >"$REPORTS/$suite-gateway.log" 2>&1 &
	serving=$!
}

bounded() { timeout --kill-after=10 "$LIMIT" testworld exec -- "$@" 2>&1 | tee "$REPORTS/$suite.log" | summary; }

# One line for each test; everything is in the log.
summary() { grep -E '^ {0,4}--- (PASS|FAIL)|^(PASS|FAIL|panic:|ok)' || true; }

gatewayapi() { # FEATURES PROFILES FLAG...
	local features=$1 profiles=$2
	shift 2
	testworld crds experimental "$here/../config/crd" >/dev/null
	serve
	bounded gatewayapi.test -test.v -test.timeout "${LIMIT}s" -gateway-class "$class" \
		-conformance-profiles "$profiles" -supported-features "$features" \
		-usable-address "$([ -n "$pods" ] && echo 10.245.0.205 || echo 10.245.0.150)" -unusable-address 192.0.2.1 \
		-organization pointsman -project pointsman -url https://github.com/pointsman/pointsman \
		-version "$("$gateway" --version | cut -d' ' -f2)" -contact '@pointsman' \
		-report-output "$REPORTS/$suite-report.yaml" "$@"
}

claimed() { # the names in the list of the source, without those of other suites
	sed -n '/^pub const SUPPORTED_FEATURES/,/^];/s/^ *"\(.*\)",$/\1/p' \
		"$here/../crates/routing/src/compile/features.rs" | grep -v '^SupportInferencePool$' | paste -sd,
}

case ${suite%-pods} in
gatewayapi) gatewayapi Gateway,HTTPRoute,ReferenceGrant GATEWAY-HTTP "$@" ;;
extended) gatewayapi "$(claimed)${pods:+,GatewayInfrastructure}" GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS "$@" ;;
inference)
	testworld crds standard "$here/../config/crd" >/dev/null
	serve
	sed "s/GATEWAY_CLASS/$class/" "$here/inference/base.yaml" | testworld kubectl apply -f - >/dev/null
	bounded inference.test -test.v -test.timeout "${LIMIT}s" "$@"
	;;
weather)
	testworld crds standard "$here/../config/crd" >/dev/null
	serve
	sed "s/GATEWAY_CLASS/$class/" "$here/inference/base.yaml" | testworld kubectl apply -f - >/dev/null
	WEATHER_PROGRAM=$(realpath "$gateway") bounded inference.test -test.v -test.run Weather -test.timeout "${LIMIT}s" "$@"
	;;
inference-epp)
	testworld crds standard "$here/../config/crd" >/dev/null
	serve
	export PICKER_IMAGE=pointsman/pointsman
	testworld kubectl apply -f "$here/inference/pickers.yaml" >/dev/null
	sed -e "s/GATEWAY_CLASS/$class/" -e "s|conformance/testepp|$PICKER_IMAGE|" \
		-e 's/args: \[--pool-name/args: [epp, --test-endpoint-selection, --pool-name/' \
		"$here/inference/base.yaml" | testworld kubectl apply -f - >/dev/null
	bounded inference.test -test.v -test.timeout "${LIMIT}s" "$@"
	;;
crds)
	testworld crds standard "$here/../config/crd" >/dev/null
	bounded crds.test -test.v "$@"
	;;
controllers)
	testworld crds standard "$here/../config/crd" >/dev/null
	provision 2
	"$here/controllers.sh" "$class" 2>&1 | tee "$REPORTS/$suite.log"
	;;
install)
	testworld crds standard >/dev/null
	testworld kubectl apply --server-side -f "$here/../deploy/install.yaml" >/dev/null
	REPOSITORY=$(realpath "$here/..") bounded rbac.test -test.v "$@"
	;;
guide) REPOSITORY=$(realpath "$here/..") bounded guide.test -test.v "$@" ;;
selftest) (cd "$here" && timeout --kill-after=10 "$LIMIT" go test -count=1 ./selftest "$@") ;;
*)
	echo "no suite $suite" >&2
	exit 2
	;;
esac
