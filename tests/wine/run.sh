#!/usr/bin/env bash
# Publishes the command for Windows and runs it under Wine: info, verify, training, resume, export. "Tested under Wine", which is not Windows: Wine lays
# stacks out otherwise, lets files be renamed that Windows would not, and has no http.sys.
#   tests/wine/run.sh [PUBLICATION]     a folder published before, with this platform's settings; made when none is given
# The reference backend runs, and onednn where build/cross/windows.sh has made libhbn.dll; HBN_REQUIRE=onednn makes its absence a failure.
# Without Wine there is nothing to do (exit code 0). Last line: wine: N passed, N failed.
set -euo pipefail
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/tests/wine/*}
wine=$(command -v wine64 || ls /usr/lib/wine/wine64 2>/dev/null || true)
if [[ -z $wine ]]; then
    echo "wine: skipped, since there is no wine64 here (on Debian: apt-get install --no-install-recommends wine64)"
    exit 0
fi

work=$(mktemp -d)
finish() {
    # Wine's server of this prefix lives some seconds longer and writes into it.
    "${wine%/*}/wineserver64" -k 2>/dev/null || true
    rm -rf "$work" || true
}
trap finish EXIT
publication=${1:-$work/publication}
[[ -n ${1:-} ]] || dotnet publish "$root/src/HpcBatchNorm.Cli" -c Release -r win-x64 --self-contained -o "$publication" -v quiet -clp:ErrorsOnly >"$work/log" 2>&1 </dev/null ||
    { cat "$work/log" >&2; exit 1; }

# Wine 8 has no double mapping of memory, which the runtime uses to keep code from being both writable and executable.
export DOTNET_EnableWriteXorExecute=0 WINEDEBUG=-all WINEPREFIX=${WINEPREFIX:-$work/prefix} OMP_NUM_THREADS=2
cd "$work"
passed=0 failed=0

# hpcbn ARGUMENTS...: the command under Wine, its output in the file `out` with Unix line ends.
hpcbn() {
    local status=0
    timeout 300 "$wine" "$publication/hpcbn.exe" "$@" >raw 2>&1 </dev/null || status=$?
    tr -d '\r' <raw >out
    return "$status"
}

# check NAME COMMAND...: runs it, and says how it went.
check() {
    local name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "wine: $name: ok"
    else
        failed=$((failed + 1))
        echo "wine: $name: FAILED, the last output:" >&2
        tail -n 20 out >&2
    fi
}

info() { hpcbn info && grep -q 'win-x64' out && grep -qE '^reference +available' out; }
no_linux() { ! find "$publication" -name '*.so' | grep .; }
has_onednn() { hpcbn info && grep -qE '^onednn +available' out && grep -q 'libhbn.dll: loaded' out; }
capped() { HBN_MAX_CPU_ISA=SSE41 hpcbn info && grep -q ', SSE (HBN_MAX_CPU_ISA=SSE41)' out; }
# OpenMP says itself what it read in its environment, which is that of the C runtime it is linked with.
spins_briefly() { OMP_DISPLAY_ENV=verbose hpcbn info && grep -q "GOMP_SPINCOUNT = '10000'" out; }
verify() { hpcbn verify --backend "$backend" --threads 2 && ! grep -qi 'not available' out; }
training() { # OUTPUT STEPS MORE...
    hpcbn train --backend "$backend" --recipe quick --data data --model inception-tiny --image-size 8 -b 4 --workers 1 --schedule constant \
        --dropout 0.2 --checkpoint-every 2 --eval-every 0 --log-every 1 --progress never --output "$1" --steps "$2" "${@:3}"
}
resumed() { training "$backend-parts" 3 && training "$backend-parts" 6 --resume auto && [[ ! -e $backend-parts/lock ]]; }
same() { cmp "$backend-whole/checkpoints/step-00000006.safetensors" "$backend-parts/checkpoints/step-00000006.safetensors"; }
no_leftovers() { ! find "$backend"-* -name '*.partial' | grep -q .; }
export_onnx() { hpcbn export --checkpoint "$backend-whole" --fold -o "$backend.onnx" && [[ -s $backend.onnx ]]; }
mistake() { ! hpcbn train --data no-such-folder --output x && grep -q 'no-such-folder' out && ! grep -q '   at HpcBatchNorm' out; }

backends=(reference)
check "info" info
check "no library of Linux was published" no_linux
if [[ -e $publication/libhbn.dll || ${HBN_REQUIRE:-} == *onednn* ]]; then
    backends=(onednn reference)
    check "info: onednn" has_onednn
    check "a cap on instruction sets reaches oneDNN" capped
    check "a short spin reaches OpenMP" spins_briefly
fi
check "sample" hpcbn sample data --classes 2 --train 12 --val 2 --image-size 16
for backend in "${backends[@]}"; do
    check "$backend: verify" verify
    check "$backend: six steps" training "$backend-whole" 6
    check "$backend: three steps, resumed for three" resumed
    check "$backend: the same checkpoint, byte for byte" same
    check "$backend: nothing left over" no_leftovers
    check "$backend: export" export_onnx
done
check "a mistake is one line" mistake
echo "wine: $passed passed, $failed failed"
exit $((failed > 0))
