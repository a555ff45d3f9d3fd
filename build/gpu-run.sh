#!/usr/bin/env bash
# On a GPU machine: run.sh RESULTS PART... A call takes at most 10 minutes: what no longer fits is left out and named, and another call can do it.
# RESULTS (gpu-results) gets two files: a table that grows row by row, from call to call, and the call's archive with all output, made anew after every
# row, so that a call that is killed loses nothing. Parts, one per call unless they are quick:
#   suite     the tests with HBN_REQUIRE=cudnn
#   verify    verification in four precisions
#   bench     bn-inception at batch 32 and 256 beside the device's measured limits, batch normalization's share of them; inference at 32
#   pytorch   the same network in PyTorch, where Python has it: eager, then compiled
#   sanitize  memcheck, racecheck and initcheck of compute-sanitizer on the small network
#   train     the recipes bn-x5 and bn-x30 in bf16 at 64 pixels; HBN_DATA, or data/ beside this script, is the data set
#   loader    how fast images are loaded with 1 to 16 threads, from the same data set
set -uo pipefail
here=$(dirname "$(readlink -f "$0")")
results=${1:-gpu-results}
shift || true
parts=("${@:-suite}")
for name in "${parts[@]}"; do
    case $name in
    suite | verify | bench | pytorch | sanitize | train | loader) ;;
    *)
        echo "'$name' is no part; there are suite, verify, bench, pytorch, sanitize, train, loader." >&2
        exit 2
        ;;
    esac
done
mkdir -p "$results"
results=$(readlink -f "$results")
hpcbn=$here/bin/hpcbn
data=${HBN_DATA:-$here/data}
# Compiled kernels and convolution algorithms are made once, not in every process.
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-$here/cache}
# What the call may take, of which the last seconds are for its end.
budget=$((${HBN_SECONDS:-585} - 15))
name=$(IFS=- && echo "${parts[*]}")
output=$here/output/$name
archive=$results/$name.tar.gz
failed=0

# row NAME STATE SECONDS TEXT: a line of the table, and the archive made anew.
row() {
    printf '%-28s %-8s %5d s  %s\n' "$1" "$2" "$3" "${4:0:100}" | tee -a "$results/table.txt"
    tar -C "$here/output" -czf "$output.new" "$(basename "$output")" && mv "$output.new" "$archive"
}

# try NAME SECONDS COMMAND...: runs it, keeps its output, notes how it ended. What is left of the call is a limit too.
try() {
    local name=$1 limit=$2 start=$SECONDS status=0 left=$((budget - SECONDS))
    shift 2
    if ((left < 5)); then
        row "$name" "not run" 0 "the call's time is up; another call: run.sh RESULTS ${part:-suite}"
        return 1
    fi
    timeout -k 10 "$((limit < left ? limit : left))" "$@" >"$output/$name.log" 2>&1 </dev/null || status=$?
    row "$name" "$([[ $status == 0 ]] && echo ok || echo "rc $status")" $((SECONDS - start)) "$(tail -n 1 "$output/$name.log")"
    ((status == 0)) || failed=1
    return $status
}

# absent NAME WHY: what could not be tried.
absent() { row "$1" "not run" 0 "$2"; }

run_suite() {
    HBN_REQUIRE=cudnn try suite 560 "$here/bin/HpcBatchNorm.Tests" -noLogo -noColor -class "*.Cudnn.DeviceTests" -class "*.Cudnn.CompilationTests" -xml "$output/suite.xml"
}

run_verify() {
    local precision
    for precision in bf16 fp32 tf32 fp16; do
        try "verify-$precision" 140 "$hpcbn" verify --backend cudnn --precision "$precision" --result "$output/verify-$precision.json"
    done
}

run_bench() {
    local batch
    for batch in 32 256; do
        try "bench-bf16-b$batch" 150 "$hpcbn" bench --no-verify --profile --backend cudnn --precision bf16 --network bn-inception -b "$batch" --result "$output/bench-bf16-b$batch.json"
    done

    # Layers beyond the last cache are the slowest ones; the last columns say how much of the measured copy rate they reach.
    grep -E '^operation|batch-norm' "$output/bench-bf16-b256.log" 2>/dev/null | head -n 31 | tee "$output/batch-norm-share.txt"
    try bench-infer 60 "$hpcbn" bench --no-verify --mode infer --backend cudnn --precision bf16 --network bn-inception -b 32 --result "$output/bench-infer.json"
    try bench-infer-relu 60 "$hpcbn" bench --no-verify --mode infer --library-relu --backend cudnn --precision bf16 --network bn-inception -b 32 --result "$output/bench-infer-relu.json"
    try bench-fp32-b32 120 "$hpcbn" bench --no-verify --backend cudnn --precision fp32 --network bn-inception -b 32 --result "$output/bench-fp32-b32.json"
}

run_pytorch() {
    if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
        try pytorch 560 python3 "$here/peers/bn_inception_pytorch.py" --batch 32 256 --seconds $((budget - SECONDS - 10))
        cat "$output/pytorch.log"
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
        # A run that the limit ended has saved its state; another call goes on with it.
        if [[ -d $output/train-$recipe/checkpoints ]]; then
            try "train-$recipe" 270 "$hpcbn" train --resume "$output/train-$recipe" --result "$output/train-$recipe.json"
            continue
        fi
        try "train-$recipe" 270 "$hpcbn" train --data "$data" --recipe "$recipe" --model inception-tiny --backend cudnn --precision bf16 --image-size 64 -b 32 \
            --crop-fraction 1 --min-area 0.25 --photometric 0 --epochs 40 -j 8 -o "$output/train-$recipe" --result "$output/train-$recipe.json"
    done
}

run_loader() {
    if [[ ! -e $data ]]; then
        absent loader "no data set: set HBN_DATA, or put it at $here/data"
        return
    fi
    local threads
    for threads in 1 2 4 8 12 16; do
        try "loader-j$threads" 45 "$hpcbn" data bench "$data" -j "$threads" --seconds 10 --result "$output/loader-j$threads.json"
    done
}

mkdir -p "$output"
if ! try info 60 "$hpcbn" info; then
    cat "$output/info.log"
    echo "hpcbn does not start here (see above); nothing else was run."
    exit 1
fi
cat "$output/info.log"
if ! grep -q '^cudnn *available' "$output/info.log"; then
    echo "The backend cudnn cannot be used here (see above); nothing else was run."
    exit 1
fi
for part in "${parts[@]}"; do
    "run_$part"
done
exit $failed
