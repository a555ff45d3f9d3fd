#!/usr/bin/env bash
# Publishes the command for Windows and runs it under Wine: info, verify, training, resume, export. "Tested under Wine", which is not Windows: Wine lays
# stacks out otherwise, lets files be renamed that Windows would not, and has no http.sys.
#   tests/wine/run.sh [PUBLICATION]     a folder published before, with this platform's settings; made when none is given
# The reference backend is what runs: there is no native library for Windows.
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
verify() { hpcbn verify --backend "$1" --threads 2 && ! grep -qi 'not available' out; }
training() { # OUTPUT STEPS MORE...
    hpcbn train --backend "$backend" --recipe quick --data data --model inception-tiny --image-size 8 -b 4 --workers 1 --schedule constant \
        --dropout 0.2 --checkpoint-every 2 --eval-every 0 --log-every 1 --progress never --output "$1" --steps "$2" "${@:3}"
}
resumed() { training parts 3 && training parts 6 --resume auto && [[ ! -e parts/lock ]]; }
same() { cmp whole/checkpoints/step-00000006.safetensors parts/checkpoints/step-00000006.safetensors; }
no_leftovers() { ! find whole parts -name '*.partial' | grep -q .; }
export_onnx() { hpcbn export --checkpoint whole --fold -o net.onnx && [[ -s net.onnx ]]; }
mistake() { ! hpcbn train --data no-such-folder --output x && grep -q 'no-such-folder' out && ! grep -q '   at HpcBatchNorm' out; }

backend=reference
check "info" info
check "no library of Linux was published" no_linux
check "verify reference" verify reference
check "sample" hpcbn sample data --classes 2 --train 12 --val 2 --image-size 16
check "six steps on $backend" training whole 6
check "three steps, resumed for three" resumed
check "the same checkpoint, byte for byte" same
check "nothing left over" no_leftovers
check "export" export_onnx
check "a mistake is one line" mistake
echo "wine: $passed passed, $failed failed"
exit $((failed > 0))
