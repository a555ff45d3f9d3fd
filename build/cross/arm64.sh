#!/usr/bin/env bash
# Builds libhbn.so for arm64 Linux on a Debian x64 machine and runs the C tests of native/ under qemu. An experiment: no arm64 hardware has run it.
#   build/cross/arm64.sh [--bundle]
# Result: artifacts/cross/arm64/lib. --bundle: also artifacts/cross/arm64/bundle, what the package HpcBatchNorm.Native.linux-arm64 holds.
# oneDNN is Debian's package for arm64, of the release this machine has; it is built without the Arm Compute Library.
set -euo pipefail
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/build/cross/*}
source "$root/build/cross/debian.sh"

cross_need "cmake make aarch64-linux-gnu-g++ qemu-aarch64 dpkg-deb" cmake make g++-aarch64-linux-gnu qemu-user dpkg
release=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
sysroot=$cross_cache/arm64-$release
if [[ ! -e $sysroot/done ]]; then
    cross_archive "arm64-$release-archive" deb "$release" arm64
    onednn=$(apt-cache "${apt_options[@]}" depends libdnnl-dev | sed -nE 's/^ *Depends: (libdnnl[0-9.]+).*/\1/p')
    [[ -n $onednn ]] || cross_die "Debian $release has no libdnnl-dev for arm64"
    cross_unpack "$sysroot" libdnnl-dev "$onednn" ocl-icd-libopencl1
    touch "$sysroot/done"
fi

build=$root/artifacts/cross/arm64
cmake -S "$root" -B "$build" -DCMAKE_TOOLCHAIN_FILE="$root/build/cross/arm64.cmake" -DHBN_SYSROOT="$sysroot" -DHBN_OUTPUT="$build/lib" \
    -DHBN_WARNINGS_AS_ERRORS=ON >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }
cmake --build "$build" --parallel "$(nproc)"

cross_say "C tests under qemu, on the processors it imitates"
# One with NEON alone, and one with SVE of 256 bits, which Debian's oneDNN makes code for from 3.7 on.
for cpu in neoverse-n1 max,sve256=on; do
    printf '== %s\n' "$cpu"
    QEMU_CPU=$cpu OMP_NUM_THREADS=2 ctest --test-dir "$build" --output-on-failure --timeout 300
done

if [[ ${1:-} == --bundle ]]; then
    bash "$root/interop/native-bundle.sh" --sysroot "$sysroot" "$build/lib/libhbn.so" "$build/bundle/"
fi
