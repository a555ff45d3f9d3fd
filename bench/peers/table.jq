# A result file -> a Markdown table: one line per form of ours, its peers beside it.
def one: . * 10 | round | tostring | if length == 1 then "0." + . else .[:-1] + "." + .[-1:] end;
def two: . * 100 | round | tostring | if length < 3 then "0." + ("00" + .)[-2:] else .[:-2] + "." + .[-2:] end;

. as $all
| def program($name): $all.programs[] | select(.name == $name);
  def ratio($ours; $peer): ([$all.ratios[] | select(.ours == $ours and .peer == $peer)][0] // null) as $r | if $r then ($r.ratio | two) + "x" else "" end;
  def against($ours; $peer): ([program($peer)][0] // null) as $p | if $p then "\($p.img_per_s | one) (\(ratio($ours; $peer)))" else "" end;
"| | ours, img/s | TorchSharp as shipped | TorchSharp, allocator tuned | ONNX Runtime | peak MB: ours, TorchSharp shipped / tuned\(if any($all.programs[]; .name | startswith("onnxruntime")) then ", ONNX Runtime" else "" end) |",
"|---|---|---|---|---|---|",
(
    ("train-fp32", "train-fp32 direct", "train-bf16", "infer-fp32", "infer-fp32 direct", "infer-bf16") as $form
    | ($form | split(" ")[0]) as $what
    | "ours \($form)" as $ours
    | program($ours) as $own
    | "| \($form | gsub("-"; " ")) | **\($own.img_per_s | one)** | \(against($ours; "torchsharp \($what) shipped")) | \(against($ours; "torchsharp \($what) tuned")) | \(against($ours; "onnxruntime \($what)")) | \([
        ($own.peak_memory_mb | round | tostring),
        ([program("torchsharp \($what) shipped", "torchsharp \($what) tuned").peak_memory_mb | round | tostring] | join(" / ")),
        ([program("onnxruntime \($what)").peak_memory_mb | round | tostring][0] // empty)
      ] | map(select(. != "")) | join(", ")) |"
),
"",
"\($all.network), batch \($all.batch), \($all.image_size) px, \($all.threads) threads; \($all.processor), \($all.memory_gb) GB, \($all.system); .NET \($all.dotnet), \($all.onednn), \($all.peers | join(", ")); commit \($all.commit), \($all.date). Medians of \($all.rounds) rounds of \($all.steps_per_round) steps, every program in turn; in brackets the median over the rounds of ours / theirs."
