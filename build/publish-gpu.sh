#!/usr/bin/env bash
# Makes artifacts/gpu-bundle.tar.xz: tests and command with a .NET runtime of their own, for a machine with a GPU and without .NET.
# There: tar xf gpu-bundle.tar.xz && gpu-bundle/run.sh RESULTS suite (python3 -m tarfile -e unpacks it where there is no xz)
set -euo pipefail
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/build/*}
cd "$root"
source build/launcher.sh
ensure_prerequisites
bundle=artifacts/gpu-bundle
rm -rf "$bundle" "$bundle".tar.*

# The tests reference the command, so one publication holds both and one runtime.
dotnet publish tests/HpcBatchNorm.Tests -c Release -r linux-x64 --self-contained -v quiet -clp:ErrorsOnly --disable-build-servers \
    -p:ValidateExecutableReferencesMatchSelfContained=false -p:DebugType=none -p:SatelliteResourceLanguages=en -o "$bundle/bin" </dev/null

# No test of the GPU reads ONNX through its own runtime, which is a third of everything and comes with Windows's beside it; nothing is debugged or
# traced there, and documentation is read elsewhere.
rm -f "$bundle"/bin/libonnxruntime* "$bundle"/bin/onnxruntime*.dll "$bundle"/bin/libmscord* "$bundle"/bin/libcoreclrtraceptprovider.so "$bundle"/bin/*.xml

# The tests look for the repository's root by this file.
cp HpcBatchNorm.sln "$bundle/"
mkdir -p "$bundle/peers"
cp bench/peers/*.py "$bundle/peers/"
cp build/gpu-run.sh "$bundle/run.sh"
chmod +x "$bundle/run.sh"
tar -C artifacts -c gpu-bundle | xz -T0 >"$bundle.tar.xz"
du -sh "$bundle" "$bundle.tar.xz"

# What a GPU machine is reached through has limits; what grows past them is to be noticed here.
limit=40000000
size=$(stat -c %s "$bundle.tar.xz")
if ((size > limit)); then
    echo "$bundle.tar.xz has $size bytes, more than the $limit allowed; the largest files are:" >&2
    find "$bundle" -type f -printf '%s %P\n' | sort -rn | sed -n 1,10p >&2
    exit 1
fi
