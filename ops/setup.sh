#!/usr/bin/env bash
# Create the virtual environment and install Landseer with everything that the demo and the tests need.
set -euo pipefail
venv=$1
python=${PYTHON:-python3}

fail() { echo "landseer: error: $*" >&2; exit 1; }

command -v "$python" >/dev/null || fail "no '$python' found; install Python 3.10, 3.11 or 3.12, or choose one: make PYTHON=/path/to/python3.11 ..."
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "'$python' does not run"
case "$version" in
    3.10 | 3.11 | 3.12) ;;
    *) fail "'$python' is Python $version; Landseer needs 3.10, 3.11 or 3.12: make PYTHON=/path/to/python3.11 ..." ;;
esac
"$python" -c 'import venv, ensurepip' 2>/dev/null || fail "Python $version has no venv module; on Debian: apt install python$version-venv"

# torch comes with its CUDA libraries.
needed=9000000
free=$(df -Pk . | awk 'NR==2 {print $4}')
[ -x "$venv/bin/python" ] || [ "$free" -ge "$needed" ] || fail "only $((free / 1000000)) GB free here; the packages need about 7 GB and their installation 9 GB"

[ -x "$venv/bin/python" ] || { echo "Creating $venv with Python $version"; "$python" -m venv "$venv"; }
echo "Installing Landseer and its packages into $venv (about 7 GB; 2 minutes on a fast connection)"
log=$venv/install.log
if ! "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar on --no-compile -e '.[dev]' 2>&1 \
    | tee "$log" | grep --line-buffered -E '^(Collecting|Installing collected|Successfully installed)' \
    | sed -u -E 's/^Collecting ([A-Za-z0-9._-]+).*/  \1/; s/^Installing collected.*/Installing them (about a minute)/; s/^Successfully.*/Installed./'; then
    if grep -qE 'No space left' "$log"; then fail "the disk is full; the packages need about 7 GB (log: $log)"; fi
    if grep -qE 'NewConnectionError|ConnectTimeout|ConnectionError|Connection refused|Temporary failure in name resolution|ProxyError|Network is unreachable|[Rr]etrying|from versions: none' "$log"; then
        fail "the package index cannot be reached; check the network, or pip's index settings (log: $log)"
    fi
    fail "pip could not install: $(grep -m1 -oE 'ERROR: .*' "$log" || tail -1 "$log") (log: $log)"
fi
# pip would do this on one core, and for the packages' own tests, a fifth of all. Like pip, pass over the files of
# packages that are of another Python.
"$venv/bin/python" -m compileall -qq -j 0 -x 'site-packages/.*/tests?/' "$venv/lib" || true
