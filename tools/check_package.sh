#!/usr/bin/env bash
# What is shipped, from end to end: sdist, wheel from that sdist with the sources out of reach, a fresh environment with
# numpy alone, a gradient. Prints what it verified. Usage: tools/check_package.sh [PYTHON]
set -euo pipefail

python=${1:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

step() { printf '%-24s %s\n' "$1" "$2"; }
fail() { echo "FAILED: $1" >&2; exit 1; }
count() { grep -cE "$1" || true; }

"$python" -m venv "$work/build"
"$work/build/bin/pip" install --quiet build

# The sdist, from a copy: what an earlier build left in the tree must neither help nor be shipped.
mkdir "$work/tree"
tar -C "$root" --exclude=./build --exclude=./dist --exclude='./.*' --exclude='*.so' --exclude=__pycache__ -cf - . \
    | tar -C "$work/tree" -xf -
cd "$work/tree"
"$work/build/bin/python" -m build --sdist --outdir "$work/dist" . > "$work/sdist.log" 2>&1 || { cat "$work/sdist.log"; fail "sdist"; }
sdist=$(ls "$work"/dist/*.tar.gz)
tar -tzf "$sdist" | sed 's|^[^/]*/||' | sort > "$work/sdist.txt"
(cd "$work/tree" && find src_pyx fastbp -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.pyi' -o -name '*.py') | sort > "$work/sources.txt"
missing=$(comm -23 "$work/sources.txt" "$work/sdist.txt")
[ -z "$missing" ] || fail "the sdist lacks $missing"
[ "$(count '\.(c|so)$' < "$work/sdist.txt")" = 0 ] || fail "the sdist holds what was built"
step sdist "$(basename "$sdist"): all $(wc -l < "$work/sources.txt") sources of src_pyx/ and fastbp/, nothing built"

# The wheel, from the sdist alone.
rm -rf "$work/tree"
mkdir "$work/unpacked"
tar -C "$work/unpacked" --strip-components=1 -xzf "$sdist"
cd "$work/unpacked"
begin=$SECONDS
"$work/build/bin/python" -m build --wheel --outdir "$work/dist" . > "$work/wheel.log" 2>&1 || { cat "$work/wheel.log"; fail "wheel"; }
wheel=$(ls "$work"/dist/*.whl)
step wheel "$(basename "$wheel"), $(du -k "$wheel" | cut -f1) kB, in $((SECONDS - begin)) s on $(nproc) processors (with its isolated environment)"
warned=$(count ':[0-9]+: warning:' < "$work/wheel.log")
[ "$warned" = 0 ] || { grep -E ':[0-9]+: warning:' "$work/wheel.log"; fail "$warned warnings of the compiler"; }
step compiler "no warnings"
"$work/build/bin/python" -m zipfile -l "$wheel" | awk 'NR > 1 { print $1 }' > "$work/wheel.txt"
[ "$(count '\.(c|pyx|pxd|pxi)$' < "$work/wheel.txt")" = 0 ] || fail "the wheel holds sources: $(grep -E '\.(c|pyx|pxd|pxi)$' "$work/wheel.txt")"
[ "$(count '^(tests|bench|examples|src_pyx|build)/' < "$work/wheel.txt")" = 0 ] || fail "the wheel holds more than the package"
grep -qx 'fastbp/py.typed' "$work/wheel.txt" || fail "the wheel lacks py.typed"
for stub in $(grep -E '^fastbp/.*\.pyi$' "$work/sources.txt"); do
    grep -qx "$stub" "$work/wheel.txt" || fail "the wheel lacks $stub"
done
step "in the wheel" "$(count '\.so$' < "$work/wheel.txt") compiled modules, $(count '\.pyi$' < "$work/wheel.txt") .pyi, py.typed; no .c, no .pyx"

# A user's environment: the wheel, numpy, nothing else; no source within reach.
rm -rf "$work/unpacked" "$work/build"
mkdir "$work/elsewhere"
cd "$work/elsewhere"
"$python" -m venv "$work/user"
"$work/user/bin/pip" install --quiet "$wheel"
installed=$("$work/user/bin/pip" list --format=freeze | grep -viE '^(pip|setuptools|wheel)==' | tr '\n' ' ')
[ "$(echo "$installed" | tr ' ' '\n' | count .)" = 2 ] || fail "more than numpy was installed: $installed"
step installed "$installed"
env -u PYTHONPATH "$work/user/bin/python" -W error "$root/tools/smoke.py"
"$work/user/bin/fastbp" info > "$work/info.txt"
"$work/user/bin/python" -m fastbp info | cmp -s - "$work/info.txt" || fail "fastbp and python -m fastbp differ"
step "command line" "fastbp info: $(grep -m1 '^isa ' "$work/info.txt" | tr -s ' ')"
echo "the package is whole"
