#!/usr/bin/env bash
# Ends a training run at random moments, by SIGKILL and by all that asks it to save and stop, resumes it each time, and compares what it leaves with an
# uninterrupted run's.
#
#   tests/kill-and-resume.sh [ROUNDS] [SHUFFLE]     default: 30 rounds, shuffle mode global; ./hpcbn must have been built
#   HPCBN=FILE  the command to run instead of the one built here
#   SEED=N      repeats the same choice of moments;  STEPS=N  the length of the run, 30 steps a kill unless set
#
# A run of inception-tiny on generated images writes a checkpoint every second step, so that much of its time goes into writing them. Of ten starts
#   - six are killed: one up to two seconds after its beginning, two when a temporary file shows that a checkpoint is being written, three up to half a
#     second after their first checkpoint;
#   - one each gets SIGTERM twice within 10 ms, SIGHUP, SIGUSR1, and loses its terminal (where there is script, which makes one). Those must end with the
#     code of the signal, and the newest checkpoint must be the state that they ended in.
# These starts use 1 to 4 loader threads in turn; the number must not matter. The last start is left alone, with the settings of the uninterrupted run.
# Passes (exit code 0) when
#   - the last checkpoint is the same file as the uninterrupted run's, byte for byte;
#   - metrics.jsonl and summary.csv hold the same lines, each once, but for times, speeds, memory, and the lines that say that a process began or ended;
#   - no temporary file and no lock is left anywhere in the run's folder, and the folder holds the same files (TensorBoard's, one per process, aside).
set -euo pipefail
kills=${1:-30} shuffle=${2:-global}
RANDOM=${SEED:-$$}
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/tests/*}
source "$root/tests/runs.sh"

steps=${STEPS:-$((kills * 30 + 50))}
# train OUTPUT WORKERS [MORE...]
train() {
    local words
    mapfile -t words < <(training "$1" "$2" "$steps" "$shuffle" "${@:3}")
    exec "${words[@]}" --progress never
}
# On a terminal of its own, with the progress bar, which goes when this process is killed.
train_on_a_terminal() {
    local words
    mapfile -t words < <(training "$1" "$2" "$steps" "$shuffle" "${@:3}")
    exec script -qfc "exec ${words[*]@Q}" /dev/null </dev/null
}

make_images
echo "an uninterrupted run of $steps steps ..."
(train whole 2) >whole.log
seconds=$SECONDS

# saved CODE EXPECTED: the process that was asked to stop ended with the code of the signal, in a state that is the newest checkpoint.
saved() {
    local step
    step=$(tail -1 killed/metrics.jsonl | sed -nE 's/.*"type":"end","step":([0-9]+),.*"outcome":"interrupted".*/\1/p')
    if [[ $1 != "$2" || -z $step || $(newest) != "$(printf 'killed/checkpoints/step-%08d.safetensors' "$step")" ]]; then
        echo "start $kill: code $1, expected $2; last line: $(tail -1 killed/metrics.jsonl | cut -c1-120); newest: $(newest)" >&2
        exit 1
    fi
    stopped=$((stopped + 1))
}

startups=0 writing=0 between=0 stopped=0
for ((kill = 1; kill <= kills; kill++)); do
    before=$(newest || true)
    how=$((kill % 10)) code=0
    if [[ $how == 8 ]] && ! command -v script >/dev/null; then
        how=3
    fi
    if [[ $how == 8 ]]; then
        (train_on_a_terminal killed $((kill % 4 + 1)) --resume auto) >>killed.log 2>&1 &
    else
        (train killed $((kill % 4 + 1)) --resume auto) >>killed.log 2>&1 &
    fi
    pid=$!
    case $how in
        0) sleep "$((RANDOM % 2)).$((RANDOM % 10))" ;;
        1 | 5) await went_on && await is_writing ;;
        *) await went_on && sleep "0.$((RANDOM % 5))$((RANDOM % 10))" ;;
    esac
    signals=KILL
    case $how in
        2) signals=TERM ;;
        4) signals=HUP ;;
        6) signals=USR1 ;;
    esac
    if ! kill -"$signals" "$pid" 2>/dev/null; then
        wait "$pid" || { echo "start $kill failed:" && tail -5 killed.log && exit 1; }
        echo "complete after $((kill - 1)) rounds: set STEPS to more than $steps" >&2
        exit 1
    fi
    if [[ $signals == TERM ]]; then
        sleep 0.01
        kill -TERM "$pid" 2>/dev/null || true
    fi
    wait "$pid" 2>/dev/null || code=$?
    pid=
    after=$(newest || true)
    case $how in
        2) saved "$code" 143 && where="SIGTERM, twice" ;;
        4) saved "$code" 129 && where="SIGHUP" ;;
        6) saved "$code" 138 && where="SIGUSR1" ;;
        8)
            for ((tries = 0; tries < 2000; tries++)); do
                ! ended || break
                sleep 0.01
            done
            saved "$code" 137 && where="terminal closed"
            after=$(newest)
            ;;
        *)
            if is_writing >/dev/null; then
                writing=$((writing + 1)) where="killed while writing a checkpoint"
            elif [[ $before == "$after" ]]; then
                startups=$((startups + 1)) where="killed before its first checkpoint"
            else
                between=$((between + 1)) where="killed between checkpoints"
            fi
            ;;
    esac
    printf 'round %2d  %-36s last: %s\n' "$kill" "$where" "${after##*/}"
done

echo "$kills rounds: $startups killed before a start's first checkpoint, $writing while writing one, $between between them, $stopped saved and stopped; now to the end ..."
(train killed 2 --resume auto) >>killed.log

status=0
compare_runs "$steps" || status=1
echo "$SECONDS s in all, $seconds s for the uninterrupted run"
exit "$status"
