#!/usr/bin/env bash
# Builds and runs every test: the C tests of native/ (ctest) and the C# tests (xunit.v3). Last line: N passed, N failed, N skipped.
#   ./test.sh                    everything but what .ci/nightly runs besides ([Trait("Category", "Nightly")]: the same again in other precisions and sizes)
#   ./test.sh --fast             leaves out what takes longer than some seconds ([Trait("Category", "Slow")])
#   ./test.sh -class "*.Contract.*" ...   any other argument goes to the xunit runner as it is, and the C tests are left out
# HBN_REQUIRE=onednn: fail where that backend cannot be used, instead of leaving its tests out.
set -euo pipefail
export ORT_DISABLE_TELEMETRY=1
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/*}
source "$root/build/launcher.sh"

arguments=()
native=yes
for argument; do
    if [[ $argument == --fast ]]; then
        arguments+=(-trait- "Category=Slow")
    else
        arguments+=("$argument")
        native=no
    fi
done
[[ $native == no ]] || arguments+=(-trait- "Category=Nightly")

tests=artifacts/bin/HpcBatchNorm.Tests/release/HpcBatchNorm.Tests
build_changed tests/HpcBatchNorm.Tests "$tests" tests
use_dotnet_on_path

results=$root/artifacts/test-results
rm -rf "$results"
mkdir -p "$results"
passed=0 failed=0 skipped=0 status=0

# attribute NAME FILE: the XML attribute NAME of the suite that FILE reports, 0 when there is none.
attribute() {
    local value
    value=$(tr '\n\t' '  ' <"$2" | sed -nE "s/.*<(assembly|testsuite) ([^>]* )?$1=\"([0-9]+)\".*/\3/p")
    printf '%s' "${value:-0}"
}

build=$root/artifacts/native-build
if [[ $native == yes ]]; then
    say "building the C tests ..."
    cmake --build "$build" --parallel "$(nproc)" >"$results/native.log" 2>&1 </dev/null || {
        cat "$results/native.log" >&2
        die "the build of the C tests failed (see above)"
    }
    ctest --test-dir "$build" --output-on-failure --output-junit "$results/native.xml" >&2 || status=$?
    if [[ -e $results/native.xml ]]; then
        n_failed=$(attribute failures "$results/native.xml") n_skipped=$(attribute skipped "$results/native.xml")
        passed=$(($(attribute tests "$results/native.xml") - n_failed - n_skipped))
        failed=$n_failed skipped=$n_skipped
    else
        say "ctest wrote no results"
        failed=1
    fi
fi

"$root/$tests" -noLogo -noColor -reporter quiet -result-xml "$results/managed.xml" "${arguments[@]}" || status=$?
if [[ -s $results/managed.xml ]]; then
    passed=$((passed + $(attribute passed "$results/managed.xml")))
    failed=$((failed + $(attribute failed "$results/managed.xml") + $(attribute errors "$results/managed.xml")))
    skipped=$((skipped + $(attribute skipped "$results/managed.xml")))
else
    say "the test runner wrote no results"
    failed=$((failed + 1))
fi

if ((passed + failed + skipped == 0)); then
    say "no test ran: the arguments leave none"
    status=1
fi
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
exit $((failed > 0 || status != 0))
