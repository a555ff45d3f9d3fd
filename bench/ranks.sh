#!/usr/bin/env bash
# Times training in several processes of one thread beside one process of as many threads, at the same images a step: the processes bound to a processor each,
# as mpirun does by itself with two, and bound to none. Each in turn, once per round. Prints the rounds, which processors the ranks could use, the medians and
# their ratios.
#
#   bench/ranks.sh [--rounds N] [--network NAME] [--image-size N] [--batch N] [--steps N] [--ranks N]
#
# --batch is of a step, of all ranks together (32). Default: 3 rounds of bn-inception, 224 pixels, 12 steps, of which the first two do not count, 2 ranks: a few
# minutes. Needs Open MPI, with which hpcbn was built. Leave the machine alone meanwhile.
set -euo pipefail
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/bench/ranks.sh}
source "$root/build/launcher.sh"

rounds=3 network=bn-inception size=224 batch=32 steps=12 ranks=2
while (($#)); do
    case $1 in
        --rounds) rounds=$2 ;;
        --network) network=$2 ;;
        --image-size) size=$2 ;;
        --batch) batch=$2 ;;
        --steps) steps=$2 ;;
        --ranks) ranks=$2 ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) say "unknown option '$1'; see --help"; exit 2 ;;
    esac
    shift 2 || { say "an option lacks its value; see --help"; exit 2; }
done
command -v mpirun >/dev/null || die "mpirun is missing. As root, run: apt-get install openmpi-bin libopenmpi-dev; then build again"
((batch % ranks == 0)) || die "$batch images a step do not divide among $ranks ranks"
((steps > 2)) || die "the first two steps do not count, so --steps takes 3 or more; found $steps"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

hpcbn=$root/artifacts/bin/HpcBatchNorm.Cli/release/hpcbn
build_changed src/HpcBatchNorm.Cli "${hpcbn#"$root/"}"
use_dotnet_on_path
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$hpcbn" sample "$work/data" --classes 4 --train "$((batch * 4))" --val 1 --image-size "$((size + 32))" >/dev/null

# affinities: the processors of each rank that trains here.
affinities() {
    local process
    for process in $(pgrep -x hpcbn); do
        if grep -qsz "^HPCBN_BENCH_RANKS=$work$" "/proc/$process/environ"; then
            echo "$(tr '\0' '\n' <"/proc/$process/environ" | sed -n 's/^OMPI_COMM_WORLD_RANK=/rank /p') on $(sed -n 's/^Cpus_allowed_list:\s*//p' "/proc/$process/status")"
        fi
    done | sort | paste -sd ';'
}
export HPCBN_BENCH_RANKS=$work

rate() { # NAME IMAGES-OF-A-PROCESS THREADS-OF-A-PROCESS COMMAND...: images per second, of the median step
    local name=$1 images=$2 threads=$3 pid where=
    shift 3
    rm -rf "$work/run"
    "$@" train --threads "$threads" --recipe quick --data "$work/data" --model "$network" --image-size "$size" -b "$images" --steps "$steps" --eval-every 0 --checkpoint-every 1000000 \
        --log-every 1 --progress never --output "$work/run" >"$work/log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        if [[ -z $where && -s $work/run/metrics.jsonl ]]; then
            where=$(affinities)
        fi
        sleep 0.2
    done
    wait "$pid" || { tail -5 "$work/log" >&2; exit 1; }
    sed -nE 's/.*"type":"train".*"images_per_second":([0-9.]+).*/\1/p' "$work/run/metrics.jsonl" | tail -n +3 | sort -n |
        awk -v name="$name" -v where="$where" '{ r[NR] = $1 } END { printf "%s %.2f %s\n", name, (r[int((NR + 1) / 2)] + r[int(NR / 2) + 1]) / 2, where }' | tee -a "$work/rows"
}

for ((round = 1; round <= rounds; round++)); do
    rate "1x$ranks" "$batch" "$ranks" "$hpcbn"
    rate "${ranks}x1-bound" "$((batch / ranks))" 1 mpirun -np "$ranks" --bind-to core "$hpcbn"
    rate "${ranks}x1-free" "$((batch / ranks))" 1 mpirun -np "$ranks" --bind-to none "$hpcbn"
done
sort -k1,1 -k2,2n "$work/rows" | awk '
    $1 != name { name = $1; n = 0 }
    { r[name, ++n] = $2; count[name] = n }
    END {
        for (name in count) { m[name] = (r[name, int((count[name] + 1) / 2)] + r[name, int(count[name] / 2) + 1]) / 2 }
        for (name in m) { if (name ~ /^1x/) one = m[name] }
        for (name in m) { printf "median: %s %.2f img/s, %.3f of one process\n", name, m[name], m[name] / one }
    }' | sort
