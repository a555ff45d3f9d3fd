# The rows of all rounds -> one result file: conditions, medians of every program, and for every peer the median over the rounds of ours / peer.
def median: sort | if length == 0 then null else .[((length - 1) / 2 | floor)] / 2 + .[(length / 2 | floor)] / 2 end;

. as $rows
| {
    date: $date, commit: $commit, processor: $processor, threads: $threads, memory_gb: $memory, system: $system, dotnet: $dotnet, onednn: $onednn,
    network: $network, batch: $batch, image_size: $size, rounds: $rounds, steps_per_round: $steps,
    limits: {
        fp32_gflops: ([$rows[] | select(.precision == "fp32") | .limit_gflops // empty] | median),
        bf16_gflops: ([$rows[] | select(.precision == "bf16") | .limit_gflops // empty] | median),
        triad_gbs: ([$rows[] | .limit_gbs // empty] | median)
    },
    peers: ([$rows[] | select(.version) | .version] | unique),
    tuned: ("GLIBC_TUNABLES=" + $tuned),
    programs: [$rows | group_by(.name)[] | {
        name: .[0].name, mode: .[0].mode, precision: .[0].precision, layout: .[0].layout,
        img_per_s: (map(.img_per_s) | median), img_per_s_min: (map(.img_per_s) | min), img_per_s_max: (map(.img_per_s) | max),
        step_ms: (map(.step_ms) | median), peak_memory_mb: (map(.peak_memory_mb) | max)
    } | with_entries(select(.value != null))],
    ratios: [
        $rows | map(select(.name | startswith("ours"))) | group_by(.name)[] | . as $ours
        | [$rows[] | select((.name | startswith("ours") | not) and .mode == $ours[0].mode and .precision == $ours[0].precision)] | group_by(.name)[] | . as $peer
        | [$ours[] as $o | $peer[] | select(.round == $o.round) | $o.img_per_s / .img_per_s] as $each
        | {ours: $ours[0].name, peer: $peer[0].name, ratio: ($each | median), ratio_min: ($each | min), ratio_max: ($each | max)}
    ],
    rows: $rows
}
