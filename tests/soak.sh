#!/usr/bin/env bash
# Trains for a while and watches the process from outside: does memory, or the number of open files or threads, grow?
#
#   tests/soak.sh [MINUTES] [TRAIN OPTIONS...]      default: 20 minutes of inception-tiny on generated images; ./hpcbn must have been built
#   HPCBN=FILE  the command to run instead of the one built here;  CSV=FILE  where to keep the samples (default: a temporary file)
#
# The run evaluates and writes checkpoints all the time, as days of training do. Every five seconds the process's resident memory (VmRSS), open files
# and threads are read from /proc. Passes (exit code 0) when in the second half of the time the memory's highest and lowest sample, each the median of
# three neighbours, lie within 1 % of each other, and when neither open files nor threads are more at its end than at its beginning.
set -euo pipefail
minutes=${1:-20}
shift || true
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/tests/*}
command=${HPCBN:-$root/artifacts/bin/HpcBatchNorm.Cli/release/hpcbn}
[[ -x $command ]] || { echo "build first: ./hpcbn --version" >&2; exit 2; }
export DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1

work=$(mktemp -d)
csv=${CSV:-$work/soak.csv}
pid=
cleanup() {
    [[ -z $pid ]] || kill -9 "$pid" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

"$command" sample "$work/data" >/dev/null
"$command" train --recipe quick --data "$work/data" --model inception-tiny --image-size 32 -b 32 --steps 100000000 --schedule constant \
    --average-decay 0.99 --eval-every 0.4 --checkpoint-every 25 --progress never --output "$work/run" "$@" >"$work/log" 2>&1 &
pid=$!

echo "seconds,rss_mb,files,threads" >"$csv"
end=$((SECONDS + minutes * 60))
while ((SECONDS < end)); do
    sleep 5
    kill -0 "$pid" 2>/dev/null || { echo "the run has ended:" && tail -5 "$work/log" && exit 1; }
    rss=$(sed -n 's/^VmRSS:\s*\([0-9]*\) kB/\1/p' "/proc/$pid/status")
    files=("/proc/$pid/fd/"*) threads=("/proc/$pid/task/"*)
    awk -v s="$SECONDS" -v r="$rss" -v f="${#files[@]}" -v t="${#threads[@]}" 'BEGIN { printf "%d,%.3f,%d,%d\n", s, r * 1.024e-3, f, t }' >>"$csv"
done
kill -TERM "$pid"
wait "$pid" || true
pid=
tail -4 "$work/log"

awk -F, -v minutes="$minutes" '
    function median(a, b, c) { return a > b ? (b > c ? b : (a > c ? c : a)) : (a > c ? a : (b > c ? c : b)) }
    NR > 1 { n++; rss[n] = $2; files[n] = $3; threads[n] = $4 }
    END {
        first = int(n / 2) + 1
        for (i = first + 1; i < n; i++) {
            m = median(rss[i - 1], rss[i], rss[i + 1])
            if (low == 0 || m < low) low = m
            if (m > high) high = m
        }
        printf "%g minutes, %d samples; in the second half: memory %.1f to %.1f MB (%.2f %%), open files %d -> %d, threads %d -> %d\n",
            minutes, n, low, high, 100 * (high - low) / low, files[first], files[n], threads[first], threads[n]
        bad = (high - low) / low > 0.01 || files[n] > files[first] || threads[n] > threads[first]
        print bad ? "FAILED: something grows or varies" : "passed"
        exit bad
    }' "$csv"
