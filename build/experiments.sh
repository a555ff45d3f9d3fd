#!/usr/bin/env bash
# Takes the results of `hpcbn experiment` in a folder into the documentation: docs/experiments/results.md and the figures as SVG.
# Usage: build/experiments.sh FOLDER
set -euo pipefail
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/build/*}
results=$(readlink -f "${1:?usage: build/experiments.sh FOLDER}")
docs=$root/docs/experiments
"$root/hpcbn" experiment page --output "$results"
rm -rf "$docs"
mkdir -p "$docs"
cp "$results/results.md" "$docs/"
for folder in "$results"/*/; do
    name=$(basename "$folder")
    # Only what the page shows: results, not runs that are still under way.
    if [[ -e $folder/result.json ]]; then
        mkdir -p "$docs/$name"
        cp "$folder"*.svg "$docs/$name/"
    fi
done
