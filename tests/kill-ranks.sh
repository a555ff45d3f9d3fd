#!/usr/bin/env bash
# Kills a rank of a training run of several at random moments, resumes the run each time, and compares what it leaves with an uninterrupted run's.
#
#   tests/kill-ranks.sh [ROUNDS] [RANKS]     default: 20 rounds of 3 ranks; ./hpcbn must have been built, with MPI
#   HPCBN=FILE  the command to run instead of the one built here
#   SEED=N      repeats the same choice of ranks and moments;  STEPS=N  the length of the run
#
# In every round one rank, any of them, gets SIGKILL: in a third of the rounds up to two seconds after the start, whether the ranks have met by then or not;
# in a third while a checkpoint is being written; in a third up to half a second after the start's first checkpoint. All processes must be gone within 20 s, and
# the launcher must say which rank it was. The last start is left alone.
# Passes (exit code 0) when the last checkpoint and the metrics are those of the uninterrupted run, as in kill-and-resume.sh, and nothing else is left.
set -euo pipefail
kills=${1:-20} ranks=${2:-3}
RANDOM=${SEED:-$$}
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/tests/*}
source "$root/tests/runs.sh"
source "$root/tests/ranks.sh"

steps=${STEPS:-$((kills * 8 + 20))}
train() { # OUTPUT [MORE...]
    local words
    mapfile -t words < <(training "$1" 1 "$steps" global "${@:2}")
    exec mpirun -np "$ranks" "${words[@]}" --progress never
}

make_images
echo "an uninterrupted run of $steps steps on $ranks ranks ..."
(train whole) >whole.log 2>&1 || { tail -5 whole.log >&2; exit 1; }
seconds=$SECONDS

is_there() { [[ -n $(rank_process "$1" "$pid") ]]; }

startups=0 writing=0 between=0 slowest=0
for ((kill = 1; kill <= kills; kill++)); do
    before=$(newest || true)
    (train killed --resume auto) >round.log 2>&1 &
    pid=$!
    victim=$((RANDOM % ranks))
    await is_there "$victim"
    process=$(rank_process "$victim" "$pid")
    case $((kill % 3)) in
        0) sleep "$((RANDOM % 2)).$((RANDOM % 10))" ;;
        1) await went_on && await is_writing ;;
        2) await went_on && sleep "0.$((RANDOM % 5))$((RANDOM % 10))" ;;
    esac
    if [[ -z $process ]] || ! kill -KILL "$process" 2>/dev/null; then
        kill -0 "$pid" 2>/dev/null && { echo "round $kill: rank $victim was not found" >&2; exit 1; }
        wait "$pid" || { echo "round $kill failed:" && tail -5 round.log && exit 1; }
        echo "complete after $((kill - 1)) rounds: set STEPS to more than $steps" >&2
        exit 1
    fi
    all_gone 20 "$pid" $(processes "$pid") || { echo "round $kill: processes are left after 20 s" >&2; exit 1; }
    code=0
    wait "$pid" || code=$?
    pid=
    if [[ $code == 0 ]] || ! grep -q "rank $victim with PID" round.log; then
        echo "round $kill: code $code; the launcher does not name rank $victim:" >&2
        tail -5 round.log >&2
        exit 1
    fi
    ((took <= slowest)) || slowest=$took
    after=$(newest || true)
    if is_writing >/dev/null; then
        writing=$((writing + 1)) where="killed while a checkpoint was written"
    elif [[ $before == "$after" ]]; then
        startups=$((startups + 1)) where="killed before the start's first checkpoint"
    else
        between=$((between + 1)) where="killed between checkpoints"
    fi
    printf 'round %2d  rank %d  %-42s all gone after %d.%03d s  last: %s\n' "$kill" "$victim" "$where" $((took / 1000)) $((took % 1000)) "${after##*/}"
done

echo "$kills rounds: $startups before a start's first checkpoint, $writing while writing one, $between between them; the slowest end took $slowest ms; now to the end ..."
(train killed --resume auto) >round.log 2>&1 || { tail -5 round.log >&2; exit 1; }

status=0
compare_runs "$steps" || status=1
echo "$SECONDS s in all, $seconds s for the uninterrupted run"
exit "$status"
