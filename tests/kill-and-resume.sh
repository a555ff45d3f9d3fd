#!/usr/bin/env bash
# Kills a training run at random moments with SIGKILL, resumes it each time, and compares what it leaves with an uninterrupted run's.
#
#   tests/kill-and-resume.sh [KILLS] [SHUFFLE]      default: 30 kills, shuffle mode global; ./hpcbn must have been built
#   HPCBN=FILE  the command to run instead of the one built here
#   SEED=N      repeats the same choice of moments;  STEPS=N  the length of the run, 30 steps a kill unless set
#
# A run of inception-tiny on generated images writes a checkpoint every second step, so that much of its time goes into writing them. Of six starts one
# is killed up to two seconds after its beginning, two when a temporary file shows that a checkpoint is being written, three up to half a second after
# their first checkpoint. Killed starts use 1 to 4 loader threads in turn; the number must not matter. The last start is left alone, with the settings
# of the uninterrupted run.
# Passes (exit code 0) when
#   - the last checkpoint is the same file as the uninterrupted run's, byte for byte;
#   - metrics.jsonl and summary.csv hold the same lines, each once, but for times, speeds, memory, and the lines that say that a process began or ended;
#   - no temporary file and no lock is left anywhere in the run's folder, and the folder holds the same files (TensorBoard's, one per process, aside).
set -euo pipefail
kills=${1:-30} shuffle=${2:-global}
RANDOM=${SEED:-$$}
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/tests/*}
command=${HPCBN:-$root/artifacts/bin/HpcBatchNorm.Cli/release/hpcbn}
[[ -x $command ]] || { echo "build first: ./hpcbn --version" >&2; exit 2; }
export DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1

work=$(mktemp -d)
pid=
cleanup() {
    [[ -z $pid ]] || kill -9 "$pid" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
cd "$work"

steps=${STEPS:-$((kills * 30 + 50))}
train() { # OUTPUT WORKERS [MORE...]
    local output=$1 workers=$2
    shift 2
    exec "$command" train --recipe quick --data data --model inception-tiny --image-size 16 -b 8 --steps "$steps" --shuffle "$shuffle" \
        --dropout 0.2 --average-decay 0.9 --clip-norm 5 --eval-every 0.3 --checkpoint-every 2 --log-every 3 -j "$workers" --progress never \
        --output "$output" "$@"
}

# What must be the same in both runs: everything but times, speeds and memory.
comparable() {
    sed -E '/"type":"(start|end)"/d; s/"(images_per_second|data_wait_share|peak_memory_mb|seconds)":[-+.eE0-9]+,?//g; s/"time":"[^"]*",?//g' "$1/metrics.jsonl"
    cut -d, -f1-7 "$1/summary.csv"
}

"$command" sample data --classes 4 --train 40 --val 5 --image-size 24 >/dev/null
echo "an uninterrupted run of $steps steps ..."
(train whole 2) >whole.log
seconds=$SECONDS

newest() { ls killed/checkpoints/step-*.safetensors 2>/dev/null | sort | tail -1; }

# await TEST...: until the test is true or the start has ended.
await() {
    until "$@" >/dev/null || ! kill -0 "$pid" 2>/dev/null; do
        sleep 0.005
    done
}
went_on() { [[ $(newest) != "$before" ]]; }
is_writing() { compgen -G 'killed/checkpoints/*.partial'; }

startups=0 writing=0 between=0
for ((kill = 1; kill <= kills; kill++)); do
    before=$(newest || true)
    (train killed $((kill % 4 + 1)) --resume auto) >>killed.log 2>&1 &
    pid=$!
    case $((kill % 6)) in
        0) sleep "$((RANDOM % 2)).$((RANDOM % 10))" ;;
        1 | 3) await went_on && await is_writing ;;
        *) await went_on && sleep "0.$((RANDOM % 5))$((RANDOM % 10))" ;;
    esac
    if ! kill -9 "$pid" 2>/dev/null; then
        wait "$pid" || { echo "start $kill failed:" && tail -5 killed.log && exit 1; }
        echo "complete after $((kill - 1)) kills: set STEPS to more than $steps" >&2
        exit 1
    fi
    wait "$pid" 2>/dev/null || true
    pid=
    after=$(newest || true)
    if is_writing >/dev/null; then
        writing=$((writing + 1)) where="while writing a checkpoint"
    elif [[ $before == "$after" ]]; then
        startups=$((startups + 1)) where="before its first checkpoint"
    else
        between=$((between + 1)) where="between checkpoints"
    fi
    printf 'kill %2d  %-28s last: %s\n' "$kill" "$where" "${after##*/}"
done

echo "$kills kills: $startups before a start's first checkpoint, $writing while writing one, $between between them; now to the end ..."
(train killed 2 --resume auto) >>killed.log

status=0
last=$(printf 'checkpoints/step-%08d.safetensors' "$steps")
if cmp "whole/$last" "killed/$last"; then
    echo "same: $last ($(stat -c %s "whole/$last") bytes)"
else
    status=1
fi
if diff <(comparable whole) <(comparable killed); then
    echo "same: metrics.jsonl ($(wc -l <whole/metrics.jsonl) lines), summary.csv ($(wc -l <whole/summary.csv) lines)"
else
    status=1
fi
files() { (cd "$1" && find . ! -type d ! -name 'events.out.tfevents.*' | sort); }
if ! diff <(files whole) <(files killed); then
    status=1
else
    echo "no temporary files left; $((SECONDS)) s in all, $seconds s for the uninterrupted run"
fi
exit "$status"
