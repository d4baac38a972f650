#!/usr/bin/env bash
# Runs a suite against pointsman in a small real cluster of its own, and takes everything away again.
#   conformance/run.sh SUITE [FLAG...]    flags go to the suite's test program, such as -run-test NAME or -test.run NAME
#
#   gatewayapi   the Gateway API's official suite: core of GATEWAY-HTTP
#   extended     the same with every optional feature that is claimed (routing::SUPPORTED_FEATURES)
#   inference    InferencePools, endpoint pickers, Pods that come and go
#   crds         the custom resource definitions of config/crd
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
suite=${1:?name a suite: gatewayapi, extended, inference, crds or selftest}
shift
CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pointsman-conformance}
REPORTS=${REPORTS:-$CACHE/reports}
LIMIT=${LIMIT:-1800}
class=pointsman

missing() { echo "SKIPPED: $*" >&2; exit 77; }
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

TESTWORLD_STATE=$(mktemp -d "${TMPDIR:-/tmp}/testworld.XXXXXX")
export TESTWORLD_STATE PATH=$bin:$PATH
serving=
finish() {
	local code=$?
	trap - EXIT INT TERM
	[ -z "$serving" ] || { kill "$serving" && wait "$serving"; } 2>/dev/null || true
	# This ends whatever else runs in the world.
	testworld down || true
	rm -rf "$TESTWORLD_STATE"
	exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM
testworld up

serve() { # the gateway under test, and its class
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
		-usable-address 10.245.0.150 -unusable-address 192.0.2.1 \
		-organization pointsman -project pointsman -url https://github.com/pointsman/pointsman \
		-version "$("$gateway" --version | cut -d' ' -f2)" -contact '@pointsman' \
		-report-output "$REPORTS/$suite-report.yaml" "$@"
}

claimed() { # the names in the list of the source, without those of other suites
	sed -n '/^pub const SUPPORTED_FEATURES/,/^];/s/^ *"\(.*\)",$/\1/p' \
		"$here/../crates/routing/src/compile/features.rs" | grep -v '^SupportInferencePool$' | paste -sd,
}

case $suite in
gatewayapi) gatewayapi Gateway,HTTPRoute,ReferenceGrant GATEWAY-HTTP "$@" ;;
extended) gatewayapi "$(claimed)" GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS "$@" ;;
inference)
	testworld crds standard "$here/../config/crd" >/dev/null
	serve
	sed "s/GATEWAY_CLASS/$class/" "$here/inference/base.yaml" | testworld kubectl apply -f - >/dev/null
	bounded inference.test -test.v -test.timeout "${LIMIT}s" "$@"
	;;
crds)
	testworld crds standard "$here/../config/crd" >/dev/null
	bounded crds.test -test.v "$@"
	;;
selftest) (cd "$here" && timeout --kill-after=10 "$LIMIT" go test -count=1 ./selftest "$@") ;;
*)
	echo "no suite $suite" >&2
	exit 2
	;;
esac
