#!/usr/bin/env bash
# Times the ResNet-18 of the NuGet package Microsoft.ML.DnnImageFeaturizer.ResNet18, imported, beside ONNX Runtime on the file itself: both give 512 features of
# images of 224 pixels, one at a time as the file demands, each in turn, once per round. Prints the rounds, the medians and their ratio.
#
#   bench/resnet18.sh [MODEL.onnx] [--rounds N] [--steps N] [--threads N]
#
# MODEL.onnx is found in NuGet's folder where the package has been restored. Needs jq. Leave the machine alone meanwhile.
set -euo pipefail
export ORT_DISABLE_TELEMETRY=1
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/bench/resnet18.sh}
source "$root/build/launcher.sh"

model=${NUGET_PACKAGES:-$HOME/.nuget/packages}/microsoft.ml.dnnimagefeaturizer.resnet18/0.23.1/tools/DnnImageModels/ResNet18Onnx/ResNet18.onnx
rounds=5 steps=20 batch=1 threads=$(nproc)
if (($#)) && [[ $1 != -* ]]; then
    model=$1
    shift
fi
while (($#)); do
    case $1 in
        --rounds) rounds=$2 ;;
        --steps) steps=$2 ;;
        --threads) threads=$2 ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) say "unknown option '$1'; see --help"; exit 2 ;;
    esac
    shift 2 || { say "an option lacks its value; see --help"; exit 2; }
done
command -v jq >/dev/null || die "jq is missing. As root, run: apt-get install jq"
[[ -f $model ]] || die "'$model' is not there; restoring the package Microsoft.ML.DnnImageFeaturizer.ResNet18 0.23.1 puts it there, or name the file."

hpcbn=$root/artifacts/bin/HpcBatchNorm.Cli/release/hpcbn
peers=$root/artifacts/bin/HpcBatchNorm.Peers/release
build_changed src/HpcBatchNorm.Cli "${hpcbn#"$root/"}"
build_changed bench/peers/HpcBatchNorm.Peers "${peers#"$root/"}/HpcBatchNorm.Peers.dll" bench/peers/HpcBatchNorm.Peers
use_dotnet_on_path
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The same file for both; what the pixels are prepared with costs nothing worth measuring.
"$hpcbn" import "$model" --bgr --pixel-mean 123.15,115.9,103.06 --pixel-deviation 1 -o "$work/resnet18.safetensors" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }

rate() { # NAME COMMAND...: images per second, of the median step
    local name=$1
    shift
    "$@" 2>"$work/log" | jq -r --arg name "$name" 'def median: sort | .[((length - 1) / 2 | floor)] / 2 + .[(length / 2 | floor)] / 2;
        1000 * .batch / (.step_ms | if type == "array" then median else . end) | "\($name) \(. * 10 | round / 10)"' || { cat "$work/log" >&2; exit 1; }
}

for ((round = 1; round <= rounds; round++)); do
    rate ours "$hpcbn" bench --network "$work/resnet18.json" --mode infer --image-size 224 -b "$batch" --threads "$threads" --steps "$steps" --no-verify --result - | tee -a "$work/rows"
    rate onnxruntime dotnet "$peers/HpcBatchNorm.Peers.dll" onnxruntime --model "$model" --batch "$batch" --image-size 224 --threads "$threads" --warmup 2 --steps "$steps" | tee -a "$work/rows"
done

jq -rRs 'def median: sort | .[((length - 1) / 2 | floor)] / 2 + .[(length / 2 | floor)] / 2;
    [split("\n")[] | select(length > 0) | split(" ")] | group_by(.[0]) | map({(.[0][0]): (map(.[1] | tonumber) | median)}) | add
    | "median: ours \(.ours) img/s, ONNX Runtime \(.onnxruntime) img/s, ratio \(.ours / .onnxruntime * 100 | round / 100)"' "$work/rows"
