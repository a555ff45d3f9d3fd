#!/usr/bin/env bash
# Writes the table of the newest file in bench/results/ into README.md, between the lines <!-- benchmarks --> and <!-- /benchmarks -->.
#   bench/update-readme.sh [RESULT [README]]
set -euo pipefail
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/bench/update-readme.sh}
result=${1:-$(find "$root/bench/results" -name '*.json' 2>/dev/null | sort | tail -n 1)}
readme=${2:-$root/README.md}
[[ -n $result ]] || { echo "update-readme: no result in bench/results; run bench/peers/run.sh" >&2; exit 1; }
grep -qx '<!-- benchmarks -->' "$readme" && grep -qx '<!-- /benchmarks -->' "$readme" ||
    { echo "update-readme: $readme lacks the lines <!-- benchmarks --> and <!-- /benchmarks -->" >&2; exit 1; }
table=$(mktemp)
trap 'rm -f "$table" "$readme.new"' EXIT
{
    echo
    jq -r -f "$root/bench/peers/table.jq" "$result"
    echo
} >"$table"
sed -e '/^<!-- benchmarks -->$/,/^<!-- \/benchmarks -->$/{//!d}' -e "/^<!-- benchmarks -->\$/r $table" "$readme" >"$readme.new"
cat "$readme.new" >"$readme"
echo "$readme: table of ${result##*/}"
