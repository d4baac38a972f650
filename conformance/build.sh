#!/bin/sh
# Builds the test world into a folder: its two programs, the image table, the Gateway API's CRDs, the
# conformance suites, and the programs behind the tests' images.
#   build.sh FOLDER     JOBS=2 sets go build -p
set -eu
cd "$(dirname "$0")"
out=${1:?name a folder, outside the repository}
mkdir -p "$out"
out=$(cd "$out" && pwd)

version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${version#v1.}
stamp="-X k8s.io/component-base/version.gitVersion=$version"
stamp="$stamp -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${minor%%.*}"
jobs=${JOBS:-2}

go build -p "$jobs" -ldflags "-s -w $stamp" -o "$out/testworld-plane" ./cmd/testworld-plane
go build -p "$jobs" -ldflags "-s -w" -o "$out/testworld" ./cmd/testworld
go build -p "$jobs" -ldflags "-s -w" -o "$out/testepp" ./cmd/testepp
go build -p "$jobs" -ldflags "-s -w" -o "$out/echo-basic" sigs.k8s.io/gateway-api/conformance/echo-basic
go test -p "$jobs" -c -ldflags "-s -w" -o "$out/gatewayapi.test" ./gatewayapi
go test -p "$jobs" -c -ldflags "-s -w" -o "$out/inference.test" ./inference
go test -p "$jobs" -c -ldflags "-s -w" -o "$out/crds.test" ./crds
go test -p "$jobs" -c -ldflags "-s -w" -o "$out/rbac.test" ./rbac
go test -p "$jobs" -c -ldflags "-s -w" -o "$out/guide.test" ./guide
(cd chart && go build -p "$jobs" -ldflags "-s -w" -o "$out/chart" .)

crds=$(go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)/config/crd
for channel in standard experimental; do
	mkdir -p "$out/crds/$channel"
	for file in "$crds/$channel"/gateway*.yaml; do
		install -m 644 "$file" "$out/crds/$channel/"
	done
done
install -m 644 images.yaml "$out/"
