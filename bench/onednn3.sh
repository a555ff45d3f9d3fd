#!/usr/bin/env bash
# Times a step with the oneDNN of this system beside the same step with the oneDNN 3 of Debian 13, on the same processor, in turn. libhbn is built and
# `hpcbn verify` run in a minimal Debian 13 root (made once; root and debootstrap needed) before anything is timed there. Writes every figure to
# bench/results/, prints median ratios.
#
#   bench/onednn3.sh [options]
#     --rounds N        rounds [5]; --steps N  steps timed per program and round [5]
#     --batch N         images per step [32]; --image-size N [224]; --network NAME [bn-inception]; --modes LIST of train,infer [train,infer]
#     --cache DIR       where the root is kept [~/.cache/hpcbn/peers]
#     --output FILE     [bench/results/onednn3-DATE-CPU.json]
#
# Needs jq. Leave the machine alone meanwhile.
set -euo pipefail
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/bench/onednn3.sh}
source "$root/build/launcher.sh"
source "$root/bench/debian13.sh"

rounds=5 steps=5 batch=32 size=224 network=bn-inception modes=train,infer output=
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hpcbn/peers
while (($#)); do
    case $1 in
        --rounds) rounds=$2 ;;
        --steps) steps=$2 ;;
        --batch) batch=$2 ;;
        --image-size) size=$2 ;;
        --network) network=$2 ;;
        --modes) modes=$2 ;;
        --cache) cache=$2 ;;
        --output) output=$2 ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) say "unknown option '$1'; see --help"; exit 2 ;;
    esac
    shift 2 || { say "an option lacks its value; see --help"; exit 2; }
done
command -v jq >/dev/null || die "jq is missing. As root, run: apt-get install jq"

folder=$root/artifacts/bin/HpcBatchNorm.Cli/release
build_changed src/HpcBatchNorm.Cli "${folder#"$root/"}/hpcbn"
use_dotnet_on_path
dotnet=$(readlink -f "$(command -v dotnet)")
debian=$cache/trixie
make_debian13 "$debian"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "building libhbn against the oneDNN of Debian 13 ..."
cp /etc/resolv.conf "$debian/etc/resolv.conf"
mkdir -p "$debian/opt/hpcbn"
cp -a "$folder/." "$debian/opt/hpcbn/"
in_debian13 "$debian" "$root=opt/source" -- /usr/bin/env HOME=/tmp LANG=C.UTF-8 PATH=/usr/bin:/bin:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive bash -ec '
    g++ -E -x c++ - <<<"#include <oneapi/dnnl/dnnl_version.h>" >/dev/null 2>&1 && command -v cmake >/dev/null || {
        apt-get update -q && apt-get install -q -y --no-install-recommends libdnnl-dev cmake make g++; }
    cmake -S /opt/source -B /opt/hbn-build -DHBN_TESTS=OFF -DHBN_CUDA_STUB=OFF
    cmake --build /opt/hbn-build --parallel "$(nproc)" --target hbn
    cp "$(find /opt/hbn-build -name libhbn.so | head -n 1)" /opt/hpcbn/' >"$work/build" 2>&1 </dev/null || { cat "$work/build" >&2; die "libhbn could not be built there (see above)"; }

here() { "$folder/hpcbn" "$@"; }
there() {
    in_debian13 "$debian" "${dotnet%/*}=opt/dotnet" -- /usr/bin/env -i HOME=/tmp LANG=C.UTF-8 PATH=/usr/bin:/bin DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1 DOTNET_ROOT=/opt/dotnet \
        /opt/hpcbn/hpcbn "$@"
}
library() { "$1" info 2>/dev/null | grep -oE 'oneDNN [0-9.]+, (AVX-512( with BF16)?|AVX2|SSE[0-9.]*)' | head -n 1; }
ours=$(library here) theirs=$(library there)
say "$ours beside $theirs"
say "verifying with $theirs ..."
there verify >"$work/verify" 2>&1 || { grep -v '^ok ' "$work/verify" >&2; die "with $theirs a result differs from the reference; nothing is timed"; }
tail -n 1 "$work/verify" >&2

for ((round = 1; round <= rounds; round++)); do
    for mode in ${modes//,/ }; do
        for place in here there; do
            "$place" bench --backend onednn --network "$network" --mode "$mode" -b "$batch" --image-size "$size" --steps "$steps" --no-verify --result - 2>>"$work/errors" |
                jq -c --arg place "$place" --arg mode "$mode" --argjson round "$round" '{place: $place, mode: $mode, round: $round, img_per_s, step_ms, peak_memory_mb}' >>"$work/rows" ||
                { cat "$work/errors" >&2; die "bench failed (see above)"; }
            tail -n 1 "$work/rows" >&2
        done
    done
done

processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
date=$(date -u +%Y-%m-%d)
[[ -n $output ]] || output=$root/bench/results/onednn3-$date-$(tr -cs 'A-Za-z0-9' '-' <<<"$processor" | sed 's/^-//; s/-$//' | tr 'A-Z' 'a-z').json
commit=$(git -C "$root" rev-parse --short HEAD)
jq -s --arg date "$date" --arg processor "$processor" --arg commit "$commit" --arg here "$ours" --arg there "$theirs" --arg network "$network" \
    --argjson batch "$batch" --argjson size "$size" --arg verified "$(tail -n 1 "$work/verify")" '
    def median: sort | .[((length - 1) / 2 | floor)] / 2 + .[(length / 2 | floor)] / 2;
    . as $rows
    | {date: $date, processor: $processor, commit: $commit, network: $network, batch: $batch, image_size: $size, here: $here, there: $there, verified_there: $verified,
       modes: ([$rows[].mode] | unique | map(. as $mode | {mode: $mode}
         + ([$rows[] | select(.mode == $mode and .place == "here") | .img_per_s] as $a | [$rows[] | select(.mode == $mode and .place == "there") | .img_per_s] as $b
            | {here_img_per_s: ($a | median), there_img_per_s: ($b | median), there_to_here: ([$a, $b] | transpose | map(.[1] / .[0]) | median)}))),
       rows: $rows}' "$work/rows" >"$output"
say "written: $output"
jq -r '"| \(.network), batch \(.batch) | \(.here) | \(.there) | ratio |", "|---|---|---|---|", (.modes[] | "| \(.mode) | \(.here_img_per_s * 10 | round / 10) | \(.there_img_per_s * 10 | round / 10) | \(.there_to_here * 100 | round / 100) |")' "$output"
