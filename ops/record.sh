#!/usr/bin/env bash
# Run a long test command and write its result and the machine to docs/reports/NAME.md:  record.sh NAME TITLE -- COMMAND...
set -uo pipefail
name=$1 what=$2
shift 3
log=$(mktemp)
trap 'rm -f "$log"' EXIT
start=$(date +%s)
"$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
{
    echo "# $what"
    echo
    echo "Written by \`make $name\` on $(date -u +%Y-%m-%d), commit $(git rev-parse --short HEAD), $(nproc) cores of $cpu, $(uname -sr)."
    echo
    echo '```'
    grep -E ' (passed|failed|error)' "$log" | tail -1
    grep -E '^(FAILED|ERROR)|^Not done|[[:space:]]DONE[[:space:]]|^Done ' "$log"
    echo '```'
    echo
    echo "It took $(($(date +%s) - start)) s and ended with status $status."
} >"docs/reports/$name.md"
exit "$status"
