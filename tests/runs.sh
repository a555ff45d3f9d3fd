# Shared by the scripts that end runs from outside (bash; sourced, with $root = the repository): the command, a folder to work in, and what two runs must have in
# common. A script sets pid while a run goes on, so that none is left behind.

command=${HPCBN:-$root/artifacts/bin/HpcBatchNorm.Cli/release/hpcbn}
[[ -x $command ]] || { echo "build first: ./hpcbn --version" >&2; exit 2; }
export DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1

work=$(mktemp -d)
pid=
# A script with more to put away says so in a function of its own.
put_away() { :; }
cleanup() {
    [[ -z $pid ]] || kill -9 "$pid" 2>/dev/null || true
    put_away
    rm -rf "$work"
}
trap cleanup EXIT
cd "$work"

# training OUTPUT WORKERS STEPS SHUFFLE [MORE...]: the command's words, one a line, for a run that writes checkpoints all the time.
training() {
    printf '%s\n' "$command" train --recipe quick --data data --model inception-tiny --image-size 16 -b 8 --steps "$3" --shuffle "$4" \
        --dropout 0.2 --average-decay 0.9 --clip-norm 5 --eval-every 0.3 --checkpoint-every 2 --log-every 3 --output "$1" -j "$2" "${@:5}"
}

make_images() { "$command" sample data --classes 4 --train 40 --val 5 --image-size 24 >/dev/null; }

newest() { ls "${1:-killed}"/checkpoints/step-*.safetensors 2>/dev/null | sort | tail -1; }

# await TEST...: until the test is true or the start has ended.
await() {
    until "$@" >/dev/null || ! kill -0 "$pid" 2>/dev/null; do
        sleep 0.005
    done
}
went_on() { [[ $(newest) != "$before" ]]; }
is_writing() { compgen -G 'killed/checkpoints/*.partial'; }

# ended: true when no process works on the run any more and the last one has said so.
ended() { [[ ! -e killed/lock ]] && tail -1 killed/metrics.jsonl | grep -q '"type":"end"'; }

# What must be the same in both runs: everything but times, speeds and memory.
comparable() {
    sed -E '/"type":"(start|end)"/d; s/"(images_per_second|data_wait_share|peak_memory_mb|seconds|communication_[a-z_]+)":[-+.eE0-9]+,?//g; s/"time":"[^"]*",?//g; s/,\}/}/' "$1/metrics.jsonl"
    cut -d, -f1-7 "$1/summary.csv"
}

files() { (cd "$1" && find . ! -type d ! -name 'events.out.tfevents.*' | sort); }

# compare_runs STEPS: whether "killed" holds what "whole" does, after so many steps.
compare_runs() {
    local last status=0
    last=$(printf 'checkpoints/step-%08d.safetensors' "$1")
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
    if diff <(files whole) <(files killed); then
        echo "no temporary files left"
    else
        status=1
    fi
    return "$status"
}
