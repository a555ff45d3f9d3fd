#!/usr/bin/env bash
# Trains for a while and watches the process from outside: does memory, or the number of open files or threads, grow?
#
#   tests/soak.sh [MINUTES] [TRAIN OPTIONS...]      default: 20 minutes of inception-tiny on generated images; ./hpcbn must have been built
#   HPCBN=FILE  the command to run instead of the one built here;  CSV=FILE  where to keep the samples (default: a temporary file)
#
# The run evaluates and writes checkpoints all the time, as days of training do. Every five seconds the process's resident memory (VmRSS), open files
# (the runtime's own assemblies, which it opens when they are first needed, aside) and threads are read from /proc. Only the second half of the time
# counts. Passes (exit code 0) when the median memory of its later half is at most 1 % above that of its earlier half, and when the median numbers of
# open files and of threads have not grown. Single samples go up and down with the garbage collector; their range is printed too.
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
    files=$(find "/proc/$pid/fd" -type l -printf '%l\n' 2>/dev/null | grep -c -v '\.dll$' || true)
    threads=("/proc/$pid/task/"*)
    awk -v s="$SECONDS" -v r="$rss" -v f="$files" -v t="${#threads[@]}" 'BEGIN { printf "%d,%.3f,%d,%d\n", s, r * 1.024e-3, f, t }' >>"$csv"
done
kill -TERM "$pid"
wait "$pid" || true
pid=
tail -4 "$work/log"

# median COLUMN FIRST LAST: the median of some samples of a column.
median() { sed -n "$((2 + $2)),$((1 + $3))p" "$csv" | cut -d, -f"$1" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
samples=$(($(wc -l <"$csv") - 1))
half=$((samples / 2)) middle=$((samples * 3 / 4))
status=0
for column in "2 memory_MB" "3 open_files" "4 threads"; do
    read -r number name <<<"$column"
    before=$(median "$number" "$half" "$middle") after=$(median "$number" "$middle" "$samples")
    range=$(sed -n "$((2 + half)),\$p" "$csv" | cut -d, -f"$number" | sort -n | sed -n '1p;$p' | paste -sd' ')
    awk -v n="$name" -v b="$before" -v a="$after" -v r="$range" -v memory="$((number == 2))" 'BEGIN {
        bad = a > b * (memory ? 1.01 : 1)
        printf "%-10s median %.1f -> %.1f (%+.2f %%), lowest and highest: %s%s\n", n, b, a, 100 * (a - b) / b, r, bad ? "   GROWS" : ""
        exit bad
    }' || status=1
done
echo "$minutes minutes, $samples samples: $([[ $status == 0 ]] && echo passed || echo FAILED)"
exit "$status"
