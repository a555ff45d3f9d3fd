#!/usr/bin/env bash
# Builds libhbn.dll for Windows x64 on a Debian x64 machine with mingw-w64, oneDNN and OpenMP inside it, looks through its instructions, and runs the C tests
# of native/ under Wine. Tested under Wine is not tested on Windows.
#   build/cross/windows.sh
# Result: artifacts/cross/win-x64/lib, and artifacts/cross/win-x64/bundle, what the package HpcBatchNorm.Native.win-x64 holds.
# oneDNN is the source package of Debian 13, with what libhbn uses of it. Its build takes an hour on two cores and is kept in ~/.cache/hpcbn-cross
# (HBN_CROSS_CACHE); one that was interrupted goes on where it stopped.
set -euo pipefail
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/build/cross/*}
source "$root/build/cross/debian.sh"
export PATH=$PATH:/usr/lib/wine

cross_need "cmake ninja x86_64-w64-mingw32-g++-posix dpkg-source wine64" cmake ninja-build g++-mingw-w64-x86-64-posix dpkg-dev wine64
toolchain=$root/build/cross/windows.cmake
launcher=()
if command -v ccache >/dev/null; then
    launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
fi

# quietly LOG COMMAND...: the output goes to LOG, and is shown when the command fails.
quietly() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null || { tail -n 40 "$log" >&2; cross_die "failed: $* (whole log: $log)"; }
}

source=$cross_cache/src onednn=$cross_cache/build-win
if [[ ! -e $source/debian/copyright ]]; then
    cross_archive trixie-source deb-src trixie amd64
    (cd "$cross_cache" && apt-get "${apt_options[@]}" source --download-only onednn) || cross_die "the source package of oneDNN could not be fetched"
    quietly "$cross_cache/unpack.log" dpkg-source --no-check -x "$cross_cache"/onednn_*.dsc "$source.part"
    # Debian links its logger, which is not built here and yet asked for.
    sed -i '/find_package(spdlog/d' "$source.part/src/CMakeLists.txt"
    mv "$source.part" "$source"
fi
if [[ ! -e $onednn/src/libdnnl.a ]]; then
    cross_say "compiling oneDNN for Windows"
    mkdir -p "$onednn"
    quietly "$onednn/configure.log" cmake -S "$source" -B "$onednn" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$toolchain" "${launcher[@]}" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_STANDARD=17 \
        -DCMAKE_CXX_FLAGS=-Wa,-muse-unaligned-vector-move \
        -DONEDNN_LIBRARY_TYPE=STATIC -DONEDNN_CPU_RUNTIME=OMP -DONEDNN_GPU_RUNTIME=NONE -DONEDNN_ARCH_OPT_FLAGS= \
        -DONEDNN_BUILD_GRAPH=OFF -DONEDNN_BUILD_DOC=OFF -DONEDNN_BUILD_EXAMPLES=OFF -DONEDNN_BUILD_TESTS=OFF \
        -DONEDNN_ENABLE_ITT_TASKS=OFF -DONEDNN_ENABLE_JIT_PROFILING=OFF \
        -DONEDNN_ENABLE_PRIMITIVE='BATCH_NORMALIZATION;CONVOLUTION;ELTWISE;INNER_PRODUCT;LRN;REORDER'
    quietly "$onednn/build.log" nice ninja -C "$onednn" -j "${HBN_CROSS_JOBS:-$(nproc)}" dnnl
fi

build=$root/artifacts/cross/win-x64
mkdir -p "$build"
quietly "$build.log" cmake -S "$root" -B "$build" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$toolchain" "${launcher[@]}" -DHBN_OUTPUT="$build/lib" \
    -DDNNL_INCLUDE="$source/include;$onednn/include" -DDNNL_LIBRARY="$onednn/src/libdnnl.a" -DHBN_WARNINGS_AS_ERRORS=ON
quietly "$build.log" cmake --build "$build" --parallel "$(nproc)"
library=$build/lib/libhbn.dll

cross_say "exports: those of hbn.h and no others"
diff <(grep -oE '\bhbn_[a-z0-9_]+\(' "$root/native/include/hbn.h" | tr -d '(' | sort -u) \
    <(x86_64-w64-mingw32-objdump -p "$library" | sed -nE 's/^[[:space:]]*\[ *[0-9]+\] (\+base\[ *[0-9]+\] +[0-9a-f]+ )?([A-Za-z_][A-Za-z0-9_]*)$/\2/p' | sort -u) >&2 ||
    cross_die "libhbn.dll exports something else than hbn.h declares (<: only declared, >: only exported)"

cross_say "libraries it needs: Windows' own alone"
needed=$(x86_64-w64-mingw32-objdump -p "$library" | sed -nE 's/.*DLL Name: (.*)/\1/p')
if foreign=$(grep -viE '^(kernel32|msvcrt|advapi32|user32|ws2_32|ntdll|api-ms-win-.*)\.dll$' <<<"$needed"); then
    cross_die "libhbn.dll needs $foreign, which Windows does not have"
fi

# Windows aligns a stack to 16 bytes, and GCC takes more for granted (its bug 54412). Wine's stacks are aligned better and hide it, hence this look at every
# move of a vector of 32 or 64 bytes that must be aligned in memory.
cross_say "instructions: no aligned move of a wide vector"
if x86_64-w64-mingw32-objdump -d --no-show-raw-insn "$library" | grep -E 'vmov(aps|apd|dqa|dqa32|dqa64)[[:space:]].*(%[yz]mm.*\(|\(.*%[yz]mm)' | head -n 20 | grep . >&2; then
    cross_die "libhbn.dll moves wide vectors as if they were aligned (the first 20 above)"
fi

cross_say "C tests under Wine"
WINEDEBUG=-all WINEPREFIX=${WINEPREFIX:-$build/wine} OMP_NUM_THREADS=2 ctest --test-dir "$build" --output-on-failure --timeout 300

bundle=$build/bundle
rm -rf "$bundle"
mkdir -p "$bundle/native" "$bundle/licenses"
x86_64-w64-mingw32-strip --strip-unneeded -o "$bundle/native/libhbn.dll" "$library"
cp "$source/debian/copyright" "$bundle/licenses/onednn-copyright.txt"
cp "$source/THIRD-PARTY-PROGRAMS" "$bundle/licenses/onednn-third-party-programs.txt"
for package in gcc-mingw-w64-x86-64-posix-runtime mingw-w64-x86-64-dev; do
    cp "/usr/share/doc/$package/copyright" "$bundle/licenses/$package-copyright.txt"
done
for text in Apache-2.0 GPL-3; do
    cp "/usr/share/common-licenses/$text" "$bundle/licenses/$text.txt"
done
cross_say "the package's files are in $bundle"
