#!/usr/bin/env bash
# Makes every number of README.md from the files in bench/results/: the table between <!-- numbers --> and <!-- /numbers --> from numbers.json, the one between
# <!-- benchmarks --> and <!-- /benchmarks --> from the results of bench/peers/run.sh, newest first
# (only the newest must not be too old).
#
#   bench/update-readme.sh                  writes them
#   bench/update-readme.sh --check          fails where README.md does not say what the files say, or a number is too old: measured more than 150 commits to
#                                           native/, interop/ or src/HpcBatchNorm ago (--distance N for another limit). CI runs this.
set -euo pipefail
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/bench/update-readme.sh}
check=0 distance=150 readme=$root/README.md
while (($#)); do
    case $1 in
        --check) check=1 ;;
        --distance) distance=$2 && shift ;;
        --readme) readme=$2 && shift ;;
        *) echo "update-readme: unknown option '$1'" >&2 && exit 2 ;;
    esac
    shift
done
numbers=$root/bench/results/numbers.json
mapfile -t peers < <(find "$root/bench/results" -name '20*.json' | sort -r)
((${#peers[@]})) || { echo "update-readme: no result in bench/results; run bench/peers/run.sh" >&2; exit 1; }
made=$(mktemp) table=$(mktemp)
trap 'rm -f "$made" "$made.new" "$table"' EXIT
cp "$readme" "$made"

# section NAME: puts standard input between the lines <!-- NAME --> and <!-- /NAME -->.
section() {
    grep -qx "<!-- $1 -->" "$made" && grep -qx "<!-- /$1 -->" "$made" || { echo "update-readme: $readme lacks the lines <!-- $1 --> and <!-- /$1 -->" >&2; exit 1; }
    { echo; cat; echo; } >"$table"
    sed -e "/^<!-- $1 -->\$/,/^<!-- \/$1 -->\$/{//!d}" -e "/^<!-- $1 -->\$/r $table" "$made" >"$made.new"
    cp "$made.new" "$made"
}

jq -r '"| | | command |\n|---|---|---|", (.rows[] | "| \(.what) | \(.number) | `\(.command)` |")' "$numbers" | section numbers
for result in "${peers[@]}"; do
    [[ $result == "${peers[0]}" ]] || echo
    jq -r -f "$root/bench/peers/table.jq" "$result"
done | section benchmarks
if ((!check)); then
    cat "$made" >"$readme"
    echo "$readme: numbers.json and ${#peers[@]} results of peers"
    exit 0
fi

failed=0
if ! diff -u --label README.md --label "made of bench/results" "$readme" "$made" >&2; then
    echo "update-readme: README.md is not what bench/results says; run bench/update-readme.sh" >&2
    failed=1
fi
# age COMMIT WHAT: how many commits to measured code came after it.
age() {
    git -C "$root" cat-file -e "$1^{commit}" 2>/dev/null || { echo "update-readme: '$2' was measured at commit $1, which this clone does not have; its age is not known" >&2; return; }
    local commits
    commits=$(git -C "$root" rev-list --count "$1..HEAD" -- native interop src/HpcBatchNorm)
    if ((commits > distance)); then
        echo "update-readme: '$2' was measured at $1, $commits commits of measured code ago; at most $distance. Measure it again." >&2
        failed=1
    fi
}
if git -C "$root" rev-parse HEAD >/dev/null 2>&1; then
    while IFS=$'\t' read -r commit what; do
        age "$commit" "$what"
    done < <(jq -r '.rows[] | "\(.commit)\t\(.what)"' "$numbers"; jq -r '"\(.commit)\tbeside other libraries"' "${peers[0]}")
fi
exit $failed
