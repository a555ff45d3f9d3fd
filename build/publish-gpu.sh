#!/usr/bin/env bash
# Makes artifacts/gpu-bundle.tar.gz: tests and command with a .NET runtime of their own, for a machine with a GPU and without .NET.
# There: tar xf gpu-bundle.tar.gz && gpu-bundle/run.sh RESULTS
set -euo pipefail
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/build/*}
cd "$root"
source build/launcher.sh
ensure_prerequisites
bundle=artifacts/gpu-bundle
rm -rf "$bundle" "$bundle.tar.gz"

# The tests reference the command, so one publication holds both and one runtime.
dotnet publish tests/HpcBatchNorm.Tests -c Release -r linux-x64 --self-contained -v quiet -clp:ErrorsOnly --disable-build-servers \
    -p:ValidateExecutableReferencesMatchSelfContained=false -p:DebugType=none -o "$bundle/bin" </dev/null

# The tests look for the repository's root by this file.
cp HpcBatchNorm.sln "$bundle/"
mkdir -p "$bundle/peers"
cp bench/peers/*.py "$bundle/peers/"
cp build/gpu-run.sh "$bundle/run.sh"
chmod +x "$bundle/run.sh"
tar -C artifacts -czf "$bundle.tar.gz" gpu-bundle
du -sh "$bundle" "$bundle.tar.gz"
