#!/usr/bin/env bash
# Hostile pictures and requests at full count:  fuzz.sh BIN   (`make fuzz`)
# By hypothesis and at random, as in the tests; then pictures chosen by coverage, by atheris.
set -uo pipefail
bin=$1
LANDSEER_FUZZ=200000 LANDSEER_FUZZ_REQUESTS=100000 "$bin/python" -m pytest -q tests/ensemble/pictures/test_pictures.py \
    tests/ensemble/api/test_fuzz.py -k "fuzz or mutat or random_bytes or cut_short" || exit
if ! "$bin/python" -m pip install -q --disable-pip-version-check 'atheris>=3,<4'; then
    echo "Not done: pictures chosen by coverage: pip found no atheris for this Python, or no package index"
    exit
fi
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
# A picture takes 10 s at most, and all of them no more memory than that.
"$bin/python" tests/coverage_fuzz.py -runs=50000 -max_len=16384 -timeout=10 -rss_limit_mb=1024 \
    -artifact_prefix=var/fuzz- "$found" 2>&1 | grep -E '^ *(#[0-9]+[[:space:]]+(pulse|DONE)|Done|==|SUMMARY|=== |Traceback|File|[A-Za-z]*Error)|artifact'
