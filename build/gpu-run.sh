#!/usr/bin/env bash
# On a GPU machine: what was found, the suite, verification in four precisions, benchmarks, PyTorch beside them. Under 10 minutes; every part has a limit
# of its own, and one that fails does not stop the others. Results go to the folder named by the first argument, a table to the terminal.
set -uo pipefail
here=$(dirname "$(readlink -f "$0")")
results=${1:-gpu-results}
mkdir -p "$results"
results=$(readlink -f "$results")
hpcbn=("$here/bin/hpcbn")
table=()
failed=0

# part NAME SECONDS COMMAND...: runs it, keeps its output, notes how it ended.
part() {
    local name=$1 limit=$2 start=$SECONDS status=0
    shift 2
    timeout "$limit" "$@" >"$results/$name.log" 2>&1 </dev/null || status=$?
    table+=("$(printf '%-28s %-8s %5d s  %s' "$name" "$([[ $status == 0 ]] && echo ok || echo "rc $status")" $((SECONDS - start)) "$(tail -n 1 "$results/$name.log" | cut -c1-100)")")
    ((status == 0)) || failed=1
}

part info 60 "${hpcbn[@]}" info
cat "$results/info.log"
if ! grep -q '^cudnn *available' "$results/info.log"; then
    echo "The backend cudnn cannot be used here (see above); nothing else was run."
    exit 1
fi
HBN_REQUIRE=cudnn part suite 240 "$here/bin/HpcBatchNorm.Tests" -noLogo -noColor -class "*.Cudnn.DeviceTests" -class "*.Cudnn.CompilationTests" -result-xml "$results/suite.xml"
for precision in fp32 tf32 bf16 fp16; do
    part "verify-$precision" 60 "${hpcbn[@]}" verify --backend cudnn --precision "$precision" --result "$results/verify-$precision.json"
done
for batch in 32 256; do
    part "bench-bf16-b$batch" 60 "${hpcbn[@]}" bench --no-verify --backend cudnn --precision bf16 --network bn-inception -b "$batch" --result "$results/bench-bf16-b$batch.json"
done
part bench-fp32-b32 60 "${hpcbn[@]}" bench --no-verify --backend cudnn --precision fp32 --network bn-inception -b 32 --result "$results/bench-fp32-b32.json"
if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    part pytorch 180 python3 "$here/peers/bn_inception_pytorch.py" --batch 32 256
    cat "$results/pytorch.log"
fi
printf '%s\n' "${table[@]}" | tee "$results/table.txt"
exit $failed
