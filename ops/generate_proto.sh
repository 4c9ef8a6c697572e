#!/usr/bin/env bash
# Generate the API's Python code from its .proto files; a test fails if they differ.
set -euo pipefail
bin=$1
out=${2:-client/v1}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$bin/python" -m grpc_tools.protoc -I client/proto --python_out="$scratch" --pyi_out="$scratch" \
    --grpc_python_out="$scratch" client/proto/landseer/v1/*.proto
mkdir -p "$out"
cp "$scratch"/landseer/v1/*_pb2* "$out/"
