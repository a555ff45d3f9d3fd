#!/usr/bin/env bash
# On a GPU machine, in one command: run.sh [RESULTS [PART...]]. Without parts: suite and bench, under 10 minutes together. Every part fits 10 minutes by
# itself; what fails or takes too long does not stop the rest. Output goes to the folder RESULTS (gpu-results), a table to the terminal.
#   suite     the tests with HBN_REQUIRE=cudnn, then verification in four precisions
#   bench     bn-inception at batch 32 and 256 beside the device's measured limits, batch normalization's share of them, PyTorch where Python has it
#   sanitize  memcheck, racecheck and initcheck of compute-sanitizer on the small network
#   train     the recipes bn-x5 and bn-x30 in bf16 at 64 pixels; HBN_DATA, or data/ beside this script, is the data set
#   loader    how fast images are loaded with 1 to 16 threads, from the same data set
set -uo pipefail
here=$(dirname "$(readlink -f "$0")")
results=${1:-gpu-results}
shift || true
parts=("${@:-suite}")
(($#)) || parts+=(bench)
for name in "${parts[@]}"; do
    case $name in
    suite | bench | sanitize | train | loader) ;;
    *)
        echo "'$name' is no part; there are suite, bench, sanitize, train, loader." >&2
        exit 2
        ;;
    esac
done
mkdir -p "$results"
results=$(readlink -f "$results")
hpcbn=$here/bin/hpcbn
data=${HBN_DATA:-$here/data}
table=()
failed=0

row() { table+=("$(printf '%-28s %-8s %5d s  %s' "$1" "$2" "$3" "${4:0:100}")"); }

# try NAME SECONDS COMMAND...: runs it, keeps its output, notes how it ended.
try() {
    local name=$1 limit=$2 start=$SECONDS status=0
    shift 2
    timeout -k 15 "$limit" "$@" >"$results/$name.log" 2>&1 </dev/null || status=$?
    row "$name" "$([[ $status == 0 ]] && echo ok || echo "rc $status")" $((SECONDS - start)) "$(tail -n 1 "$results/$name.log")"
    ((status == 0)) || failed=1
    return $status
}

# absent NAME WHY: what could not be tried.
absent() { row "$1" "not run" 0 "$2"; }

run_suite() {
    HBN_REQUIRE=cudnn try suite 300 "$here/bin/HpcBatchNorm.Tests" -noLogo -noColor -class "*.Cudnn.DeviceTests" -class "*.Cudnn.CompilationTests" -xml "$results/suite.xml"
    local precision
    for precision in fp32 tf32 bf16 fp16; do
        try "verify-$precision" 60 "$hpcbn" verify --backend cudnn --precision "$precision" --result "$results/verify-$precision.json"
    done
}

run_bench() {
    local batch
    for batch in 32 256; do
        try "bench-bf16-b$batch" 70 "$hpcbn" bench --no-verify --profile --backend cudnn --precision bf16 --network bn-inception -b "$batch" --result "$results/bench-bf16-b$batch.json"
    done
    try bench-fp32-b32 60 "$hpcbn" bench --no-verify --backend cudnn --precision fp32 --network bn-inception -b 32 --result "$results/bench-fp32-b32.json"

    # Layers beyond the last cache are the slowest ones; the last columns say how much of the measured copy rate they reach.
    grep -E '^operation|batch-norm' "$results/bench-bf16-b256.log" | head -n 31 >"$results/batch-norm-share.txt"
    cat "$results/batch-norm-share.txt"
    if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
        try pytorch 180 python3 "$here/peers/bn_inception_pytorch.py" --batch 32 256 && cat "$results/pytorch.log"
    else
        absent pytorch "python3 has no torch with CUDA"
    fi
}

run_sanitize() {
    local tool sanitizer
    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | tail -n 1)
    if [[ -z $sanitizer ]]; then
        absent sanitize "compute-sanitizer is not installed (CUDA toolkit, or pip install nvidia-cuda-sanitizer-api)"
        return
    fi
    for tool in memcheck racecheck initcheck; do
        try "sanitize-$tool" 180 "$sanitizer" --tool "$tool" --error-exitcode 9 "$hpcbn" verify --backend cudnn --network inception-tiny --case training-step
    done
}

run_train() {
    if [[ ! -e $data ]]; then
        absent train "no data set: set HBN_DATA, or put it at $here/data"
        return
    fi
    local recipe
    for recipe in bn-x5 bn-x30; do
        # A run that the limit ends has saved its state; it goes on with: hpcbn train --resume FOLDER
        try "train-$recipe" 280 "$hpcbn" train --data "$data" --recipe "$recipe" --model inception-tiny --backend cudnn --precision bf16 --image-size 64 -b 32 \
            --crop-fraction 1 --min-area 0.25 --photometric 0 --epochs 40 -j 8 -o "$results/train-$recipe" --result "$results/train-$recipe.json"
    done
}

run_loader() {
    if [[ ! -e $data ]]; then
        absent loader "no data set: set HBN_DATA, or put it at $here/data"
        return
    fi
    local threads
    for threads in 1 2 4 8 12 16; do
        try "loader-j$threads" 45 "$hpcbn" data bench "$data" -j "$threads" --seconds 10 --result "$results/loader-j$threads.json"
    done
}

if ! try info 60 "$hpcbn" info; then
    cat "$results/info.log"
    echo "hpcbn does not start here (see above); nothing else was run."
    exit 1
fi
cat "$results/info.log"
if ! grep -q '^cudnn *available' "$results/info.log"; then
    echo "The backend cudnn cannot be used here (see above); nothing else was run."
    exit 1
fi
for name in "${parts[@]}"; do
    "run_$name"
done
printf '%s\n' "${table[@]}" | tee "$results/table.txt"
exit $failed
