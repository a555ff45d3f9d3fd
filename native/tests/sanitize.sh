#!/usr/bin/env bash
# The C and C++ tests of native/ under AddressSanitizer and UndefinedBehaviorSanitizer, in a build folder of their own.
set -euo pipefail
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/native/tests/sanitize.sh}
build=$root/artifacts/native-sanitized
cmake -S "$root" -B "$build" -DHBN_TESTS=ON -DHBN_CUDA_STUB=OFF -DHBN_SANITIZE=address,undefined >/dev/null
cmake --build "$build" --target abi_smoke kernels_test --parallel "$(nproc)"
# oneDNN and OpenMP keep memory until the process ends.
ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 ctest --test-dir "$build" --output-on-failure
