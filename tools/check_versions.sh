#!/usr/bin/env bash
# Builds with the oldest setuptools, Cython and numpy that pyproject.toml declares, and with the newest ones, each in an environment of
# its own; then a short test (tools/smoke.py), of the newest build also with the oldest numpy. Usage: tools/check_versions.sh [PYTHON]
set -euo pipefail

python=${1:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

requirements() {
    "$python" - "$root/pyproject.toml" << 'PYTHON'
import sys, tomllib
print(*tomllib.load(open(sys.argv[1], "rb"))["build-system"]["requires"])
PYTHON
}
newest=$(requirements)
oldest=${newest//>=/==}

versions() { "$1" -m pip list --format=freeze | grep -iE '^(setuptools|cython|numpy)==' | tr '\n' ' '; }
smoke() { (cd "$work" && env -u PYTHONPATH "$1" -W error "$root/tools/smoke.py"); }

"$python" -c 'import sys; print("Python", sys.version.split()[0])'
for which in oldest newest; do
    bin="$work/$which/bin"
    "$python" -m venv "$work/$which"
    "$bin/pip" install --quiet --upgrade pip
    # shellcheck disable=SC2086
    "$bin/pip" install --quiet ${!which}
    echo "$which: $(versions "$bin/python")"
    # A copy, so that what an earlier build left in the tree does not help.
    mkdir "$work/tree"
    tar -C "$root" --exclude=./build --exclude=./dist --exclude='./.*' --exclude='*.so' --exclude=__pycache__ -cf - . \
        | tar -C "$work/tree" -xf -
    begin=$SECONDS
    "$bin/pip" install --quiet --no-build-isolation --no-deps "$work/tree" > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    rm -rf "$work/tree"
    echo "built in $((SECONDS - begin)) s"
    smoke "$bin/python"
done
# shellcheck disable=SC2086
"$bin/pip" install --quiet $(tr ' ' '\n' <<< "$oldest" | grep '^numpy')
echo "built with the newest: $(versions "$bin/python")"
smoke "$bin/python"
