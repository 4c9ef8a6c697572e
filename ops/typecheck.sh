#!/usr/bin/env bash
# mypy sees the packages through a folder of links, because the top-level folders have other names than the packages.
set -euo pipefail
bin=$1
rm -rf .mypy && mkdir -p .mypy/landseer
for folder in client ensemble export ops; do ln -s "../../$folder" ".mypy/landseer/$folder"; done
ln -s ../../client/v1 .mypy/landseer/v1
exec "$bin/mypy" -p landseer.client -p landseer.ensemble -p landseer.export -p landseer.ops
