#!/usr/bin/env bash
# Packs everything, and uses the packages from projects outside the repository, restored from a local feed, as users do.
#   tests/consumers/run.sh [KIND...]
# Kinds: console, skia (a newer SkiaSharp than ours), tool, plugin, web, self-contained, single-file, self-extract, trimmed, aot, native (the command as native code)
# [all of them]; windows: the console program published for Windows x64, under Wine (among all where build/cross/windows.sh has run, and tests/wine/run.sh after it, which fetches
# .NET for Windows); roots: the published console program in bare Debian roots without oneDNN (as root, needs debootstrap; not among all).
# Ends with a line: consumers: N passed, N failed.
set -euo pipefail
here=$(readlink -f "${BASH_SOURCE[0]}")
here=${here%/*}
root=${here%/tests/consumers}
source "$root/build/launcher.sh"
kinds=("$@")
if ((${#kinds[@]} == 0)); then
    kinds=(console skia tool plugin web self-contained single-file self-extract trimmed aot native)
    [[ ! -e $root/artifacts/cross/win-x64/bundle/native/libhbn.dll ]] || kinds+=(windows)
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A package cache of their own, so that packages of an earlier build are not taken; what others publish comes from the usual one.
export NUGET_PACKAGES=$work/packages
fallback=${HBN_NUGET_PACKAGES:-$HOME/.nuget/packages}
version=$(sed -n 's|.*<Version>\(.*\)</Version>.*|\1|p' "$root/Directory.Build.props")
rid=linux-x64

quietly() { # runs a command and shows its output only when it fails
    "$@" >"$work/log" 2>&1 </dev/null || { cat "$work/log" >&2; return 1; }
}

say "packing ..."
NUGET_PACKAGES=$fallback quietly dotnet pack "$root/HpcBatchNorm.sln" -c Release -o "$work/feed" -v quiet -p:RunAnalyzers=false --disable-build-servers
cat >"$work/nuget.config" <<X
<configuration>
  <packageSources><add key="local" value="$work/feed" /></packageSources>
  <fallbackPackageFolders><add key="usual" value="$fallback" /></fallbackPackageFolders>
</configuration>
X
printf '<Project />\n' | tee "$work/Directory.Build.props" "$work/Directory.Build.targets" >"$work/Directory.Packages.props"

# program FOLDER: a console project with the program of docs/package.md in it.
program() {
    mkdir -p "$1"
    cp "$root/docs/icon.png" "$1/picture.png"
    sed -n '/^```csharp$/,/^```$/{/^```/d;p}' "$root/docs/package.md" >"$work/lines"
    sed -e "/The lines of docs\/package.md/{r $work/lines" -e 'd;}' "$here/Program.cs" >"$1/Program.cs"
    cat >"$1/${1##*/}.csproj" <<X
<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup>
    <OutputType>Exe</OutputType>
    <TargetFramework>net10.0</TargetFramework>
    <Nullable>enable</Nullable>
    <ImplicitUsings>enable</ImplicitUsings>
    <InvariantGlobalization>true</InvariantGlobalization>
  </PropertyGroup>
  <ItemGroup>
    <Content Include="picture.png" CopyToOutputDirectory="Always" ExcludeFromSingleFile="true" />
  </ItemGroup>
</Project>
X
    (cd "$1" && quietly dotnet add package HpcBatchNorm.Training --version "$version")
}

# answers COMMAND...: the program classifies rightly, and every native library is the package's.
answers() {
    "$@" >"$work/out" 2>&1 </dev/null || { cat "$work/out" >&2; return 1; }
    if ! grep -q "^bright: " "$work/out" || ! grep -q "^picture: " "$work/out"; then
        cat "$work/out" >&2
        return 1
    fi
    local library
    for library in libhbn libdnnl libgomp; do
        if ! grep -q "^$library: " "$work/out" || grep -qE "^$library: (not loaded|/usr/|/lib)" "$work/out"; then
            say "$library is not the package's:"
            cat "$work/out" >&2
            return 1
        fi
    done
}

published() { # NAME PROPERTIES...: publishes the program for linux-x64 and runs it
    local name=$1
    shift
    program "$work/$name"
    quietly dotnet publish "$work/$name" -c Release -r $rid -o "$work/$name/out" --disable-build-servers "$@" || return 1
    say "$name: $(du -sm "$work/$name/out" | cut -f1) MB in $(find "$work/$name/out" -type f | wc -l) files"
    answers "$work/$name/out/$name"
}

consume_console() {
    program "$work/console"
    quietly dotnet build "$work/console" -c Release --disable-build-servers && answers dotnet "$work/console/bin/Release/net10.0/console.dll"
}

consume_tool() {
    quietly dotnet tool install hpcbn --version "$version" --tool-path "$work/tool" --configfile "$work/nuget.config" || return 1
    HBN_PATH='' quietly "$work/tool/hpcbn" verify --network inception-tiny --image-size 32 -b 2
    "$work/tool/hpcbn" info >"$work/out"
    if ! grep -q 'libhbn.so: loaded' "$work/out" || ! grep -q "$work" "$work/out"; then
        cat "$work/out" >&2
        return 1
    fi
}

# An application that uses a newer SkiaSharp than ours.
consume_skia() {
    program "$work/skia"
    local package
    for package in SkiaSharp SkiaSharp.NativeAssets.Linux.NoDependencies; do
        (cd "$work/skia" && quietly dotnet add package "$package" --version 4.155.0) || return 1
    done
    quietly dotnet build "$work/skia" -c Release --disable-build-servers && answers dotnet "$work/skia/bin/Release/net10.0/skia.dll"
}

consume_plugin() {
    program "$work/plugin"
    quietly dotnet build "$work/plugin" -c Release -p:EnableDynamicLoading=true -o "$work/plugin/out" --disable-build-servers || return 1
    mkdir "$work/host"
    cp "$here/host/Program.cs" "$work/plugin/picture.png" "$work/host/"
    sed 's|<OutputType>|<EnableDynamicLoading>false</EnableDynamicLoading><OutputType>|; /PackageReference/d' "$work/plugin/plugin.csproj" >"$work/host/host.csproj"
    quietly dotnet build "$work/host" -c Release -o "$work/host/out" --disable-build-servers && answers dotnet "$work/host/out/host.dll" "$work/plugin/out/plugin.dll"
}

# The web service of docs/samples, with its project references replaced by packages: starts, and answers a picture.
consume_web() {
    cp -r "$root/docs/samples/WebService" "$work/web"
    rm -rf "$work/web/bin" "$work/web/obj"
    sed -i -E 's|<ProjectReference Include=".*/(HpcBatchNorm[^/]*)\.csproj" />|<PackageReference Include="\1" Version="'"$version"'" />|; s|<OutputType>|<TargetFramework>net10.0</TargetFramework><Nullable>enable</Nullable><ImplicitUsings>enable</ImplicitUsings><OutputType>|' "$work/web/"*.csproj
    grep -q TargetFramework "$work/web/"*.csproj || sed -i 's|<PropertyGroup>|<PropertyGroup><TargetFramework>net10.0</TargetFramework><Nullable>enable</Nullable><ImplicitUsings>enable</ImplicitUsings>|' "$work/web/"*.csproj
    quietly dotnet build "$work/web" -c Release -o "$work/web/out" --disable-build-servers || return 1
    quietly dotnet "$root/artifacts/bin/HpcBatchNorm.Cli/release/hpcbn.dll" train --steps 4 --output "$work/run" || return 1
    local checkpoint picture port=18475 pid answer='' i
    checkpoint=$(find "$work/run/checkpoints" -name '*.safetensors' | head -n 1)
    picture=$root/docs/icon.png
    dotnet "$work/web/out/WebService.dll" "$checkpoint" --urls "http://127.0.0.1:$port" >"$work/web.log" 2>&1 </dev/null &
    pid=$!
    for ((i = 0; i < 60; i++)); do
        answer=$(curl -s --data-binary "@$picture" "http://127.0.0.1:$port/classify") && break
        sleep 0.5
    done
    kill $pid
    wait $pid 2>/dev/null || true
    grep -q '"probability"' <<<"$answer" || { cat "$work/web.log" >&2; say "answer: $answer"; return 1; }
}

consume_self-contained() { published self-contained --self-contained; }
consume_single-file() { published single-file --self-contained -p:PublishSingleFile=true; }
consume_self-extract() { published self-extract --self-contained -p:PublishSingleFile=true -p:IncludeNativeLibrariesForSelfExtract=true; }
consume_trimmed() { published trimmed --self-contained -p:PublishTrimmed=true; }

consume_aot() {
    published aot -p:PublishAot=true -p:CppCompilerAndLinker=gcc || return 1
    say "aot: $("$work/aot/out/aot" --probe)"
}

# Trains on onednn: libhbn.dll, which has oneDNN and OpenMP inside, is the package's.
consume_windows() {
    local out=$work/windows/out wine
    wine=$(command -v wine64 || echo /usr/lib/wine/wine64)
    program "$work/windows"
    (cd "$work/windows" && quietly dotnet add package HpcBatchNorm.Native.win-x64 --version "$version-experimental") || return 1
    quietly dotnet publish "$work/windows" -c Release -r win-x64 --self-contained -o "$out" --disable-build-servers || return 1
    if find "$out" -name '*.so' | grep . >&2; then
        say "libraries of Linux were published for Windows"
        return 1
    fi
    DOTNET_EnableWriteXorExecute=0 WINEDEBUG=-all WINEPREFIX=$work/wine timeout 300 "$wine" "$out/windows.exe" >"$work/out" 2>&1 </dev/null ||
        { cat "$work/out" >&2; return 1; }
    "${wine%/*}/wineserver64" -k 2>/dev/null || true
    grep -q '^picture: ' "$work/out" && grep -qi '^libhbn: .*windows.out.libhbn.dll' "$work/out" || { cat "$work/out" >&2; return 1; }
}

# The command itself, compiled to native code: no warning, and it does what it does on .NET but for assemblies of the user's, which it refuses in a sentence.
consume_native() {
    local start end out=$work/native fastest='' i
    dotnet publish "$root/src/HpcBatchNorm.Cli" -c Release -r $rid -o "$out" -p:PublishAot=true -p:IlcTreatWarningsAsErrors=true -p:CppCompilerAndLinker=gcc -p:BundleNative=true -p:RunAnalyzers=false \
        --disable-build-servers >"$work/log" 2>&1 </dev/null || { cat "$work/log" >&2; return 1; }
    if grep -E 'warning IL[0-9]+' "$work/log" >&2; then
        return 1
    fi
    [[ ! -e $out/hpcbn.dll ]] || { say "native: it is not native code"; return 1; }
    for ((i = 0; i < 5; i++)); do
        start=${EPOCHREALTIME/./}
        "$out/hpcbn" --version >/dev/null
        end=${EPOCHREALTIME/./}
        [[ -n $fastest ]] && ((fastest <= end - start)) || fastest=$((end - start))
    done
    say "native: starts in $((fastest / 1000)) ms; $(du -sm "$out" | cut -f1) MB"
    "$out/hpcbn" info >"$work/out" || return 1
    grep -q "$out/libhbn.so: loaded" "$work/out" || { cat "$work/out" >&2; return 1; }
    quietly "$out/hpcbn" verify --network inception-tiny --image-size 32 -b 2 || return 1
    quietly "$out/hpcbn" train --recipe quick --steps 4 --output "$work/native-run" || return 1
    quietly "$out/hpcbn" eval --checkpoint "$work/native-run" || return 1
    if "$out/hpcbn" inspect --assembly "$work/native/libhbn.so" >"$work/out" 2>&1 || ! grep -q 'compiled to native code' "$work/out"; then
        cat "$work/out" >&2
        return 1
    fi
}

consume_roots() {
    published roots --self-contained || return 1
    local mirror suite script base
    mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' | grep -v security | head -n 1)}
    for suite in bookworm trixie; do
        base=$work/$suite script=/usr/share/debootstrap/scripts/$suite
        [[ -e $script ]] || script=/usr/share/debootstrap/scripts/sid
        quietly debootstrap --variant=minbase --include=libstdc++6 "$suite" "$base" "$mirror" "$script" || return 1
        cp -r "$work/roots/out" "$base/opt/program"
        answers unshare --mount --propagation private bash -c 'mount --rbind /proc "$1/proc" && exec chroot "$1" /usr/bin/env -i HOME=/tmp PATH=/usr/bin /opt/program/roots' _ "$base" || return 1
        say "roots: $suite, $(chroot "$base" ldd --version | sed -n 1p)"
    done
}

passed=0 failed=0
for kind in "${kinds[@]}"; do
    declare -F "consume_$kind" >/dev/null || die "unknown kind '$kind'; see the head of this file"
    # As a condition a function would run on after an error, hence the shell of its own.
    if (set -e; "consume_$kind"); then
        say "$kind: passed"
        passed=$((passed + 1))
    else
        say "$kind: FAILED"
        failed=$((failed + 1))
    fi
done
printf 'consumers: %d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
