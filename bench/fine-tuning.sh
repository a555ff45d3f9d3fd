#!/usr/bin/env bash
# Fine-tunes the ResNet-18 of the NuGet package Microsoft.ML.DnnImageFeaturizer.ResNet18 on images of one's own, beside the same network from nothing after the same
# steps, each at the learning rate that does best on training data. docs/fine-tuning.md has what came out.
#
#   bench/fine-tuning.sh DATA FOLDER [--model FILE.onnx] [--classes N] [--image-size N] [--batch N] [--trial N] [--steps N] [--piece TIME] [--with COMMAND]
#     DATA              images in any layout that hpcbn train reads; their validation split is used once, at the end
#     FOLDER            runs and figures; what is there already is not done again, so the command may be stopped and given again
#     --classes N       how many the images have [40]; --image-size N  [64]; --batch N  [50]
#     --trial N         steps of each trial of a learning rate [100]; --steps N  of the two runs [800]
#     --piece TIME      the longest that one process trains before another goes on from its checkpoint [150s]
#     --with COMMAND    put before every piece, e.g. 'flock /tmp/lock nice -n 19'
#
# A learning rate is chosen by the mean loss of a trial's last fifth of steps. Within the first epoch no image comes twice, so that is a loss on images the network
# has not been trained on. Needs jq.
set -euo pipefail
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/bench/fine-tuning.sh}
source "$root/build/launcher.sh"

model=${NUGET_PACKAGES:-$HOME/.nuget/packages}/microsoft.ml.dnnimagefeaturizer.resnet18/0.23.1/tools/DnnImageModels/ResNet18Onnx/ResNet18.onnx
size=64 classes=40 batch=50 trial=100 steps=800 piece=150s with=() names=()
while (($#)); do
    case $1 in
        --model) model=$2 ;;
        --image-size) size=$2 ;;
        --classes) classes=$2 ;;
        --batch) batch=$2 ;;
        --trial) trial=$2 ;;
        --steps) steps=$2 ;;
        --piece) piece=$2 ;;
        --with) read -ra with <<<"$2" ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        -*) say "unknown option '$1'; see --help"; exit 2 ;;
        *) names+=("$1") && shift && continue ;;
    esac
    shift 2 || { say "an option lacks its value; see --help"; exit 2; }
done
((${#names[@]} == 2)) || { say "a data set and a folder are needed; see --help"; exit 2; }
command -v jq >/dev/null || die "jq is missing. As root, run: apt-get install jq"
[[ -f $model ]] || die "'$model' is not there; restoring the package Microsoft.ML.DnnImageFeaturizer.ResNet18 0.23.1 puts it there, or name the file with --model."
data=$(readlink -f "${names[0]}")
mkdir -p "${names[1]}"
cd "${names[1]}"
hpcbn=${HPCBN:-$root/artifacts/bin/HpcBatchNorm.Cli/release/hpcbn}
[[ -n ${HPCBN:-} ]] || build_changed src/HpcBatchNorm.Cli "${hpcbn#"$root/"}"
use_dotnet_on_path

pixels=(--pixel-mean '123.15,115.9,103.06' --pixel-deviation 1)
if [[ ! -e network.json ]]; then
    "${with[@]}" "$hpcbn" import "$model" --bgr "${pixels[@]}" -o resnet18.safetensors >import.log
    # One average over all places, and a classifier of its own.
    jq --argjson classes "$classes" 'del(.minimum_image_size) | .layers |= .[:-2] + [{name: "Pooling395", type: "global_average_pooling", inputs: .[-2].inputs},
        {name: "fc", type: "fully_connected", attributes: {outputs: $classes}}, {name: "loss", type: "softmax_loss"}]' resnet18.json >network.json
fi

# run NAME STEPS RATE ARGUMENTS...: trains in pieces until it is done; NAME.json is its result.
run() {
    local name=$1 steps=$2 rate=$3 code=75 arguments
    shift 3
    while [[ ! -e $name.json ]]; do
        if compgen -G "$name/checkpoints/*.safetensors" >/dev/null; then
            arguments=(--resume "$name")
        else
            arguments=(--model network.json --data "$data" --image-size "$size" --crop-fraction 1 "${pixels[@]}" --batch-size "$batch" --steps "$steps" --learning-rate "$rate"
                --schedule cosine --weight-decay 1e-4 --min-area 0.4 --photometric 0 --log-every 5 --output "$name" "$@")
        fi
        code=0
        "${with[@]}" "$hpcbn" train "${arguments[@]}" --max-time "$piece" --result "$name.part" >>"$name.log" 2>&1 || code=$?
        ((code == 0 || code == 75)) || { tail -n 5 "$name.log" >&2; die "$name failed (log: $PWD/$name.log)"; }
        ((code == 75)) || mv "$name.part" "$name.json"
    done
}

# best KIND ARGUMENTS...: the learning rate with the lowest loss at the end of its trial; all of them to standard error.
best() {
    local kind=$1 rate lowest='' chosen='' loss
    shift
    for rate in ${rates[$kind]}; do
        run "$kind-$rate" "$trial" "$rate" --eval-every 0 "$@"
        loss=$(jq -s --argjson from $((trial * 4 / 5)) '[.[] | select(.type == "train" and .step > $from) | .loss] | add / length' "$kind-$rate/metrics.jsonl")
        say "$kind, learning rate $rate: training loss $loss at the end of $trial steps"
        if [[ -z $lowest ]] || jq -en "$loss < $lowest" >/dev/null; then
            lowest=$loss chosen=$rate
        fi
    done
    printf '%s\n' "$chosen"
}

declare -A rates=([package]='0.001 0.003 0.01' [nothing]='0.01 0.03 0.1')
package=(--initial-checkpoint "$PWD/resnet18.safetensors" --reset-classifier)
for kind in package nothing; do
    extra=()
    [[ $kind == nothing ]] || extra=("${package[@]}")
    rate=$(best "$kind" "${extra[@]}")
    # A rate at the edge of those that were tried may not be the best one.
    run "$kind-run" "$steps" "$rate" "${extra[@]}"
    jq -r --arg kind "$kind" --arg rate "$rate" '"\($kind), learning rate \($rate): top-1 \(.val_top1), top-5 \(.val_top5), validation loss \(.val_loss), training loss \(.train_loss), \(.steps) steps, \(.images) images, \(.seconds) s in its last piece"' "$kind-run.json"
done
