#!/usr/bin/env bash
# Times our step beside the same step of TorchSharp (as shipped, and with glibc's allocator tuned) and of ONNX Runtime: the same network, shapes and
# threads, every program once per round, in turn. Writes every figure to bench/results/, prints median ratios.
#
#   bench/peers/run.sh [options]
#     --rounds N        rounds [7]
#     --steps N         steps timed per program and round [5], after --warmup N [2] (ours always warms up with 2)
#     --batch N         images per step [32]; --image-size N [224]; --threads N [all cores]
#     --network NAME    [bn-inception]
#     --modes LIST      of train,infer [train,infer]; --precisions LIST of fp32,bf16 [fp32,bf16]
#     --layout L        TorchSharp's: nchw, nhwc (channels last), or best: whichever one trial of each says [best]
#     --cache DIR       where a Debian 13 root is kept, if one is needed [~/.cache/hpcbn/peers]
#     --output FILE     [bench/results/DATE-CPU.json, with the network and the batch in its name where they are others than above]
#
# TorchSharp's native library wants the C++ library of GCC 13 (Debian 13, Ubuntu 24.04). On an older system it runs in a minimal Debian 13 root that
# this script makes once with debootstrap (root needed; 250 MB), with the .NET SDK and the built programs bound in. Only TorchSharp runs there.
# Needs jq. Leave the machine alone meanwhile: one busy core slows OpenMP programs several times over.
set -euo pipefail
export ORT_DISABLE_TELEMETRY=1
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/bench/peers/run.sh}
source "$root/build/launcher.sh"
source "$root/bench/debian13.sh"

rounds=7 steps=5 warmup=2 batch=32 size=224 threads=$(nproc) network=bn-inception modes=train,infer precisions=fp32,bf16 layout=best output=
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hpcbn/peers
while (($#)); do
    case $1 in
        --rounds) rounds=$2 ;;
        --steps) steps=$2 ;;
        --warmup) warmup=$2 ;;
        --batch) batch=$2 ;;
        --image-size) size=$2 ;;
        --threads) threads=$2 ;;
        --network) network=$2 ;;
        --modes) modes=$2 ;;
        --precisions) precisions=$2 ;;
        --layout) layout=$2 ;;
        --cache) cache=$2 ;;
        --output) output=$2 ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) say "unknown option '$1'; see --help"; exit 2 ;;
    esac
    shift 2 || { say "an option lacks its value; see --help"; exit 2; }
done
command -v jq >/dev/null || die "jq is missing. As root, run: apt-get install jq"

hpcbn=$root/artifacts/bin/HpcBatchNorm.Cli/release/hpcbn
peers=$root/artifacts/bin/HpcBatchNorm.Peers/release
build_changed src/HpcBatchNorm.Cli "${hpcbn#"$root/"}"
build_changed bench/peers/HpcBatchNorm.Peers "${peers#"$root/"}/HpcBatchNorm.Peers.dll" bench/peers/HpcBatchNorm.Peers
use_dotnet_on_path
dotnet=$(readlink -f "$(command -v dotnet)")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# CPU.md's setting in words: huge pages for the heap, and never give memory back to the system between steps.
tuned=glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8589934592:glibc.malloc.trim_threshold=17179869184

# --- Where TorchSharp can run ---------------------------------------------------------------------------------------------------------------------
trixie=
if ! has_new_libstdcxx ""; then
    trixie=$cache/trixie
    make_debian13 "$trixie"
fi

# torch TUNABLES ARGUMENTS...: the TorchSharp program, in the root where one is needed.
torch() {
    local tunables=$1
    shift
    local environment=(HOME=/tmp LANG=C.UTF-8 PATH=/usr/bin:/bin DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1 OMP_NUM_THREADS="$threads")
    [[ -z $tunables ]] || environment+=("GLIBC_TUNABLES=$tunables")
    if [[ -z $trixie ]]; then
        env -i "${environment[@]}" DOTNET_ROOT="${dotnet%/*}" "$dotnet" "$peers/HpcBatchNorm.Peers.dll" torchsharp "$@"
        return
    fi
    in_debian13 "$trixie" "${dotnet%/*}=opt/dotnet" "$peers=opt/peers" -- \
        /usr/bin/env -i "${environment[@]}" DOTNET_ROOT=/opt/dotnet /opt/dotnet/dotnet /opt/peers/HpcBatchNorm.Peers.dll torchsharp "$@"
}

# --- The programs: each prints one JSON object ----------------------------------------------------------------------------------------------------
shape=(--batch "$batch" --image-size "$size" --threads "$threads")

ours() { # MODE PRECISION ARGUMENTS...
    "$hpcbn" bench --backend onednn --network "$network" --mode "$1" --precision "$2" -b "$batch" --image-size "$size" --threads "$threads" --steps "$steps" --no-verify --result - "${@:3}" 2>>"$work/errors"
}

# run NAME COMMAND...: one row {name, round, img_per_s, step_ms, peak_memory_mb, ...}; what fails is said and ends the run.
run() {
    local name=$1 json
    shift
    if ! json=$("$@" 2>>"$work/errors"); then
        cat "$work/errors" >&2
        die "$name failed (see above)"
    fi
    jq -c --arg name "$name" --argjson round "$round" '
        def median: sort | .[((length - 1) / 2 | floor)] / 2 + .[(length / 2 | floor)] / 2;
        (.step_ms | if type == "array" then median else . end) as $ms
        | {name: $name, round: $round, mode, precision, img_per_s: (1000 * .batch / $ms), step_ms: $ms, peak_memory_mb, version, layout, largest_difference, limit_gflops, limit_gbs,
           outside_share, allocated_bytes_per_step} | with_entries(select(.value != null))' <<<"$json" | tee -a "$work/rows" |
        jq -r '"  \(.name): \(.img_per_s * 10 | round / 10) img/s, \(.peak_memory_mb | round) MB"' >&2
}

# Ours must be right before it is timed; the TorchSharp program compares itself with our reference every time.
say "verifying ours ..."
for precision in ${precisions//,/ }; do
    for mode in ${modes//,/ }; do
        "$hpcbn" bench --backend onednn --network "$network" --mode "$mode" --precision "$precision" -b 2 --image-size 64 --threads "$threads" --steps 1 >"$work/verify" 2>&1 ||
            { cat "$work/verify" >&2; die "ours differs from the reference; nothing is timed"; }
    done
done
"$hpcbn" export --model "$network" --image-size "$size" --fold --input images -o "$work/model.onnx" >/dev/null

declare -A best
for mode in ${modes//,/ }; do
    for precision in ${precisions//,/ }; do
        best[$mode-$precision]=$layout
        if [[ $layout == best ]]; then
            fastest=
            for candidate in nchw nhwc; do
                time=$(torch "$tuned" --network "$network" --mode "$mode" --precision "$precision" --layout "$candidate" "${shape[@]}" --warmup 1 --steps 2 2>>"$work/errors" | jq '.step_ms | min') ||
                    { cat "$work/errors" >&2; die "TorchSharp failed (see above)"; }
                if [[ -z $fastest ]] || jq -en "$time < $fastest" >/dev/null; then
                    fastest=$time best[$mode-$precision]=$candidate
                fi
            done
            say "TorchSharp, $mode $precision: ${best[$mode-$precision]} is faster"
        fi
    done
done

for ((round = 1; round <= rounds; round++)); do
    say "round $round of $rounds"
    for mode in ${modes//,/ }; do
        for precision in ${precisions//,/ }; do
            what="$mode-$precision"
            peer=(--network "$network" --mode "$mode" --precision "$precision" --layout "${best[$what]}" "${shape[@]}" --warmup "$warmup" --steps "$steps")
            run "ours $what" ours "$mode" "$precision"
            run "torchsharp $what shipped" torch "" "${peer[@]}"
            if [[ $precision == fp32 ]]; then
                run "ours $what direct" ours "$mode" "$precision" --conv-algorithm direct
            fi
            run "torchsharp $what tuned" torch "$tuned" "${peer[@]}"
            if [[ $what == infer-fp32 ]]; then
                run "onnxruntime $what" dotnet "$peers/HpcBatchNorm.Peers.dll" onnxruntime --model "$work/model.onnx" "${shape[@]}" --warmup "$warmup" --steps "$steps"
            fi
        done
    done
done

# --- Results --------------------------------------------------------------------------------------------------------------------------------------
processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
date=$(date -u +%Y-%m-%d)
if [[ -z $output ]]; then
    output=$root/bench/results/$date-$(tr -cs 'A-Za-z0-9' '-' <<<"$processor" | sed 's/^-//; s/-$//' | tr 'A-Z' 'a-z')
    [[ $network == bn-inception ]] || output+=-$(basename "$network" .json)
    [[ $batch == 32 ]] || output+=-batch-$batch
    output+=.json
fi
mkdir -p "$(dirname "$output")"
commit=$(git -C "$root" rev-parse --short HEAD)
[[ -z $(git -C "$root" status --porcelain) ]] || commit+=-dirty
onednn=$("$hpcbn" info 2>/dev/null | grep -oE 'oneDNN [0-9.]+, (AVX-512( with BF16)?|AVX2|SSE)' | head -n 1 || true)
jq -s --arg date "$date" --arg processor "$processor" --arg system "$(. /etc/os-release && echo "$PRETTY_NAME"), Linux $(uname -r)" --arg commit "$commit" --arg onednn "$onednn" \
    --arg dotnet "$(dotnet --version)" --arg network "$network" --arg tuned "$tuned" --argjson batch "$batch" --argjson size "$size" --argjson threads "$threads" \
    --argjson rounds "$rounds" --argjson steps "$steps" --argjson memory "$(awk '/MemTotal/ {printf "%.1f", $2 / 1048576}' /proc/meminfo)" \
    -f "$root/bench/peers/summary.jq" "$work/rows" >"$output"
say "written: $output"
jq -r -f "$root/bench/peers/table.jq" "$output"
