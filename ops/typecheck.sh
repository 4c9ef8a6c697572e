#!/usr/bin/env bash
# mypy sees the namespace through a folder of links, since the top-level folders carry other names than the packages.
set -euo pipefail
bin=$1
rm -rf .mypy && mkdir -p .mypy/landseer
for folder in client ensemble export ops; do ln -s "../../$folder" ".mypy/landseer/$folder"; done
ln -s ../../client/v1 .mypy/landseer/v1
exec "$bin/mypy" -p landseer.client -p landseer.ensemble -p landseer.export -p landseer.ops
