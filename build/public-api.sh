#!/usr/bin/env bash
# Writes down the public surface of the library's assemblies: src/*/PublicAPI.Shipped.txt and PublicAPI.Unshipped.txt. Members that are new go to the
# second file, those that are gone leave both; with --ship, for a release, everything goes to the first.
# Usage: build/public-api.sh [--ship]
set -euo pipefail
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/build/*}
cd "$root"
[[ ${1:-} == "" || ${1:-} == --ship ]] || { echo "usage: build/public-api.sh [--ship]" >&2; exit 2; }

shipped=(src/*/PublicAPI.Shipped.txt)
log=$(mktemp) before=$(mktemp -d)
trap 'rm -rf "$log" "$before"' EXIT
for file in "${shipped[@]}"; do
    mkdir -p "$before/$(dirname "$file")"
    cp "$file" "${file/Shipped/Unshipped}" "$before/$(dirname "$file")/"
done
restore() { for file in "${shipped[@]}"; do cp "$before/$(dirname "$file")"/PublicAPI.*.txt "$(dirname "$file")/"; done; }

# Against empty files the analyzer names every public member.
for file in "${shipped[@]}"; do
    echo '#nullable enable' | tee "$file" >"${file/Shipped/Unshipped}"
done
# The command stands on all of them, so its build names the members of all.
if ! CheckPublicApi=false dotnet build src/HpcBatchNorm.Cli -c Release -v quiet -p:RunAnalyzers=true -p:TreatWarningsAsErrors=false \
    "-clp:NoSummary;ForceNoAlign" >"$log" 2>&1; then
    grep -E 'error' "$log" | sort -u >&2
    restore
    echo "The build failed; the files are as they were." >&2
    exit 1
fi

export LC_ALL=C
for file in "${shipped[@]}"; do
    folder=$(dirname "$file") unshipped=${file/Shipped/Unshipped}
    members=$(grep -F "[$root/$folder/" "$log" | sed -n "s/.*RS0016: Symbol '\(.*\)' is not part of the declared public API.*/\1/p" | sort -u)
    if [[ -z $members ]]; then
        restore
        echo "No public member of $folder was found; does src/HpcBatchNorm.Cli still stand on it? The files are as they were." >&2
        exit 1
    fi
    if [[ ${1:-} == --ship ]]; then
        printf '#nullable enable\n%s\n' "$members" >"$file"
        printf '#nullable enable\n' >"$unshipped"
    else
        known=$(tail -n +2 "$before/$folder/PublicAPI.Shipped.txt" | sort -u)
        { echo '#nullable enable'; comm -12 <(printf '%s\n' "$known") <(printf '%s\n' "$members"); } | sed '/^$/d' >"$file"
        { echo '#nullable enable'; comm -13 <(printf '%s\n' "$known") <(printf '%s\n' "$members"); } | sed '/^$/d' >"$unshipped"
    fi
    echo "$folder: $(tail -n +2 "$file" | wc -l) members, and $(tail -n +2 "$unshipped" | wc -l) not shipped yet"
done
