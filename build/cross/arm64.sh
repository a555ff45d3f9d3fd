#!/usr/bin/env bash
# Builds libhbn.so for arm64 Linux on a Debian x64 machine and runs the C tests of native/ under qemu. An experiment: no arm64 hardware has run it.
#   build/cross/arm64.sh
# Result: artifacts/cross/linux-arm64/lib, and artifacts/cross/linux-arm64/bundle, what the package HpcBatchNorm.Native.linux-arm64 holds.
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

build=$root/artifacts/cross/linux-arm64
mkdir -p "$build"
cmake -S "$root" -B "$build" -DCMAKE_TOOLCHAIN_FILE="$root/build/cross/arm64.cmake" -DHBN_SYSROOT="$sysroot" -DHBN_OUTPUT="$build/lib" \
    -DHBN_WARNINGS_AS_ERRORS=ON >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }
cmake --build "$build" --parallel "$(nproc)"

cross_say "C tests under qemu, on the processors it imitates"
# One with NEON alone, and one with SVE of 256 bits, which Debian's oneDNN makes code for from 3.7 on.
for cpu in neoverse-n1 max,sve256=on; do
    printf '== %s\n' "$cpu"
    QEMU_CPU=$cpu OMP_NUM_THREADS=2 ctest --test-dir "$build" --output-on-failure --timeout 300
done

# Beside libhbn, whose RPATH is its own folder, lies what a bare system lacks.
bundle=$build/bundle
rm -rf "$bundle"
mkdir -p "$bundle/native" "$bundle/licenses"
aarch64-linux-gnu-strip --strip-unneeded -o "$bundle/native/libhbn.so" "$build/lib/libhbn.so"
onednn=$(aarch64-linux-gnu-readelf -d "$build/lib/libhbn.so" | sed -nE 's/.*\[(libdnnl\.so[^]]*)\]/\1/p')
gomp=$(aarch64-linux-gnu-g++ -print-file-name=libgomp.so.1)
cp -L "$sysroot/usr/lib/aarch64-linux-gnu/$onednn" "$gomp" "$bundle/native/"
chmod 644 "$bundle"/native/*
if aarch64-linux-gnu-readelf -d "$bundle/native/$onednn" | grep -q libOpenCL; then
    cp -L "$sysroot/usr/lib/aarch64-linux-gnu/libOpenCL.so.1" "$bundle/native/"
    cp "$sysroot/usr/share/doc/ocl-icd-libopencl1/copyright" "$bundle/licenses/ocl-icd-libopencl1-copyright.txt"
fi
cp "$sysroot"/usr/share/doc/libdnnl[0-9]*/copyright "$bundle/licenses/libdnnl-copyright.txt"
cp -L /usr/share/doc/libgomp1-arm64-cross/copyright "$bundle/licenses/libgomp1-copyright.txt"
cp /usr/share/common-licenses/Apache-2.0 "$bundle/licenses/Apache-2.0.txt"
cp /usr/share/common-licenses/GPL-3 "$bundle/licenses/GPL-3.txt"
cross_say "the package's files are in $bundle"
