#!/usr/bin/env bash
# Builds libhbn.dll for x64 Windows on a Debian x64 machine with mingw-w64, oneDNN linked into it, and runs the C tests of native/ under Wine where that is.
# An experiment: tested under Wine alone.
#   build/cross/windows.sh [--onednn-only]
# Result: artifacts/cross/win-x64/bundle, what the package HpcBatchNorm.Native.win-x64 and a publication for win-x64 hold.
# oneDNN is made of Debian's source package, once, into the user's cache folder ($HBN_CROSS_CACHE; about half an hour of two processors). Only the
# primitives that libhbn uses are in it.
set -euo pipefail
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/build/cross/*}
source "$root/build/cross/debian.sh"

# The release of Debian whose oneDNN is taken, and what it is expected to be: the patch below was made for it.
release=trixie version=3.7.2
primitives="BATCH_NORMALIZATION;CONVOLUTION;ELTWISE;INNER_PRODUCT;LRN;REORDER"

cross_need "cmake ninja dpkg-source x86_64-w64-mingw32-g++-posix" cmake ninja-build dpkg-dev g++-mingw-w64-x86-64-posix
onednn=$cross_cache/onednn-$version-win-x64
if [[ ! -e $onednn/done ]]; then
    cross_say "building oneDNN $version for Windows, once"
    work=$cross_cache/onednn-$version-build
    mkdir -p "$work"
    if [[ ! -e $work/source/unpacked ]]; then
        cross_archive "source-$release-archive" deb-src "$release" amd64
        rm -rf "$work/source"
        (cd "$work" && apt-get "${apt_options[@]}" source --download-only onednn)
        package=$(compgen -G "$work/onednn_$version*.dsc") || cross_die "Debian $release has another oneDNN than $version: $(ls "$work")"
        # apt has checked the package against the archive's signed list; --no-check leaves out a second check, by the keys of single maintainers.
        dpkg-source --no-check -x "$package" "$work/source"
        # Debian links the whole library with spdlog, which only its log files need, and which is off by default.
        sed -i '/find_package(spdlog/d' "$work/source/src/CMakeLists.txt"
        touch "$work/source/unpacked"
    fi
    launcher=()
    if command -v ccache >/dev/null; then
        launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
    fi
    # -muse-unaligned-vector-move: GCC uses aligned moves of wide vectors on a stack that Windows aligns to 16 bytes only (its bug 54412).
    cmake -G Ninja -S "$work/source" -B "$work/build" -DCMAKE_TOOLCHAIN_FILE="$root/build/cross/windows.cmake" -DHBN_ONEDNN="$onednn" \
        -DCMAKE_INSTALL_PREFIX="$onednn" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_STANDARD=17 -DCMAKE_CXX_FLAGS=-Wa,-muse-unaligned-vector-move \
        -DONEDNN_LIBRARY_TYPE=STATIC -DONEDNN_CPU_RUNTIME=OMP -DONEDNN_GPU_RUNTIME=NONE -DONEDNN_BUILD_TESTS=OFF -DONEDNN_BUILD_EXAMPLES=OFF \
        -DONEDNN_BUILD_GRAPH=OFF -DONEDNN_ENABLE_JIT_PROFILING=OFF -DONEDNN_ENABLE_ITT_TASKS=OFF -DONEDNN_ENABLE_PRIMITIVE="$primitives" \
        -DONEDNN_ARCH_OPT_FLAGS= "${launcher[@]}" >"$work/configure.log" 2>&1 || { tail -n 30 "$work/configure.log" >&2; exit 1; }
    # In the background of whatever else the machine does.
    nice -n 19 cmake --build "$work/build" --target dnnl --parallel "$(nproc)" >"$work/build.log" 2>&1 || { tail -n 40 "$work/build.log" >&2; exit 1; }
    mkdir -p "$onednn/lib" "$onednn/licenses"
    cp -r "$work/source/include" "$onednn/"
    cp -r "$work/build/include/." "$onednn/include/"
    cp "$work/build/src/libdnnl.a" "$onednn/lib/"
    cp "$work/source/LICENSE" "$onednn/licenses/oneDNN-LICENSE.txt"
    cp "$work/source/THIRD-PARTY-PROGRAMS" "$onednn/licenses/oneDNN-THIRD-PARTY-PROGRAMS.txt"
    touch "$onednn/done"
fi
if [[ ${1:-} == --onednn-only ]]; then
    exit 0
fi

build=$root/artifacts/cross/win-x64
mkdir -p "$build"
cmake -G Ninja -S "$root" -B "$build" -DCMAKE_TOOLCHAIN_FILE="$root/build/cross/windows.cmake" -DHBN_ONEDNN="$onednn" -DHBN_OUTPUT="$build/lib" \
    -DHBN_WARNINGS_AS_ERRORS=ON >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }
cmake --build "$build" --parallel "$(nproc)"
library=$build/lib/libhbn.dll

# Nothing but Windows' own libraries may be needed, and what is exported is what hbn.h declares.
needs=$(x86_64-w64-mingw32-objdump -p "$library" | sed -nE 's/^\s*DLL Name: //p')
if others=$(grep -viE '^(kernel32|msvcrt|advapi32|user32|ws2_32)\.dll$' <<<"$needs"); then
    cross_die "libhbn.dll needs libraries that Windows has not: $others"
fi
exports=$(x86_64-w64-mingw32-objdump -p "$library" | sed -nE 's/^\s+\[ *[0-9]+\](\s+\+base\[ *[0-9]+\])?\s+[0-9a-f]*\s*([A-Za-z_].*)$/\2/p' | sort -u)
declared=$(grep -oE '\bhbn_[a-z0-9_]+\(' "$root/native/include/hbn.h" | tr -d '(' | sort -u)
if [[ $exports != "$declared" ]]; then
    diff <(printf '%s\n' "$declared") <(printf '%s\n' "$exports") >&2 || true
    cross_die "libhbn.dll does not export exactly what hbn.h declares (see above: < declared, > exported)"
fi

# Aligned moves of 32 or 64 bytes that have memory on the stack as an operand fault on Windows, and Wine hides it.
aligned='vmov(aps|apd|dqa|dqa32|dqa64)\s.*([(]%r(sp|bp)[^)]*[)].*%[yz]mm|%[yz]mm.*[(]%r(sp|bp)[^)]*[)])'
if x86_64-w64-mingw32-objdump -d --no-show-raw-insn "$library" | grep -E "$aligned" | head -n 5 | grep . >&2; then
    cross_die "libhbn.dll has aligned moves of wide vectors on the stack (see above)"
fi

if [[ -x /usr/lib/wine/wine64 ]]; then
    cross_say "C tests under Wine"
    export WINEPREFIX=${WINEPREFIX:-$cross_cache/wine} WINEDEBUG=-all OMP_NUM_THREADS=2
    cp "$library" "$build/native/" # Windows looks beside the program
    for test in abi_smoke kernels_test; do
        timeout 300 /usr/lib/wine/wine64 "$build/native/$test.exe"
    done
else
    cross_say "no Wine here (wine64): the C tests were not run"
fi

bundle=$build/bundle
rm -rf "$bundle"
mkdir -p "$bundle/native" "$bundle/licenses"
x86_64-w64-mingw32-strip --strip-unneeded -o "$bundle/native/libhbn.dll" "$library"
cp "$onednn"/licenses/* "$bundle/licenses/"
# The compiler's runtimes and its OpenMP, and the C library's parts of mingw-w64, are linked into the DLL.
cp -L /usr/share/doc/gcc-mingw-w64-x86-64-posix/copyright "$bundle/licenses/gcc-runtimes-copyright.txt"
cp -L /usr/share/doc/mingw-w64-x86-64-dev/copyright "$bundle/licenses/mingw-w64-copyright.txt"
cp /usr/share/common-licenses/GPL-3 "$bundle/licenses/GPL-3.txt"
cross_say "the package's files are in $bundle"
