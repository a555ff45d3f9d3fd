# Shared by hpcbn, test.sh and .ci/run (bash; sourced, with $root = the repository): what the build needs, and building only what changed.
# Everything it prints goes to stderr, so that the standard output of a command stays the command's own.

export DOTNET_NOLOGO=1 DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_GENERATE_ASPNET_CERTIFICATE=false
# Neither the SDK nor the command needs ICU then.
export DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1

say() { printf 'hpcbn: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# What the build needs and this machine lacks, into the arrays packages (Debian names) and reasons.
find_missing_packages() {
    packages=() reasons=()
    missing() { packages+=("$1") && reasons+=("$2"); }
    command -v cmake >/dev/null || missing cmake "builds the native library"
    command -v make >/dev/null || missing make "runs the native build"
    command -v g++ >/dev/null || missing g++ "compiles the native library"
    # A oneDNN of one's own is named to CMake by CMAKE_PREFIX_PATH or dnnl_DIR; CMake then says whether it is there.
    if [[ -z ${CMAKE_PREFIX_PATH:-}${dnnl_DIR:-} ]] &&
        ! g++ -E -x c++ - <<<'#include <oneapi/dnnl/dnnl_version.h>' >/dev/null 2>&1; then
        missing libdnnl-dev "oneDNN, the CPU primitives"
    fi
    # NuGet speaks TLS: the runtime loads OpenSSL, and needs certificates to trust.
    if [[ ! -e /etc/ssl/certs/ca-certificates.crt && ! -e /etc/pki/tls/certs/ca-bundle.crt && ! -e /etc/ssl/cert.pem ]]; then
        missing ca-certificates "lets NuGet restore over TLS"
    fi
    if ! compgen -G '/usr/lib*/libssl.so.*' >/dev/null && ! compgen -G '/usr/lib/*/libssl.so.*' >/dev/null && ! compgen -G '/lib/*/libssl.so.*' >/dev/null; then
        missing openssl "lets NuGet restore over TLS"
    fi
    if [[ ${1:-} == lint ]] && ! command -v clang-format-14 >/dev/null; then
        missing clang-format-14 "checks the format of native/"
    fi
    if [[ ${1:-} == lint ]] && ! command -v jq >/dev/null; then
        missing jq "checks the numbers of README.md"
    fi
    if [[ ${1:-} == lint ]] && ! command -v chromium >/dev/null; then
        missing chromium "shows the tests what the report and the dashboard look like"
    fi
    # Who trains in one process needs no MPI; what connects processes is compiled against the one that is there.
    if [[ ${1:-} == lint ]] && ! command -v mpicxx >/dev/null; then
        missing libopenmpi-dev "lets the tests train in several processes"
    fi
    if [[ ${1:-} == lint ]] && ! command -v mpirun >/dev/null; then
        missing openmpi-bin "lets the tests train in several processes"
    fi
}

# Installs what is missing (Debian, Ubuntu), or says exactly what to do, and stops. "lint" adds what only .ci/run needs.
ensure_prerequisites() {
    local sdk as_root=() log="$root/artifacts/apt.log" i command
    if ! command -v dotnet >/dev/null; then
        die "the .NET 10 SDK is missing ('dotnet' is not on PATH). Install it: https://learn.microsoft.com/dotnet/core/install/linux"
    fi
    sdk=$(dotnet --list-sdks 2>&1) || die "'dotnet --list-sdks' failed: $sdk"
    if ! grep -q '^10\.' <<<"$sdk"; then
        die "the .NET 10 SDK is missing (found: ${sdk//$'\n'/, }). Install it: https://learn.microsoft.com/dotnet/core/install/linux"
    fi

    find_missing_packages "$@"
    if ((${#packages[@]} == 0)); then
        return
    fi
    for i in "${!packages[@]}"; do
        say "missing ${packages[i]}: ${reasons[i]}"
    done
    command="apt-get install -y --no-install-recommends ${packages[*]}"
    if ! command -v apt-get >/dev/null; then
        die "install what these Debian packages hold with this system's package manager, then try again: ${packages[*]}"
    fi
    if [[ ${HBN_NO_INSTALL:-0} == 1 ]]; then
        die "HBN_NO_INSTALL=1, so nothing is installed. As root, run: apt-get update && $command"
    fi
    if ((EUID != 0)); then
        sudo -n true 2>/dev/null || die "installing needs root. As root, run: apt-get update && $command"
        as_root=(sudo -n)
    fi
    say "installing: $command"
    apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@"; }
    if ! { apt update && apt install -y --no-install-recommends "${packages[@]}"; } >"$log" 2>&1 </dev/null; then
        tail -n 30 "$log" >&2
        die "installing failed (whole log: $log). As root, run: apt-get update && $command"
    fi
}

# Every file the build depends on, with size and time of change: the build is up to date while this text stays the same.
list_sources() {
    local top source sources=()
    for top in src interop native "$@" CMakeLists.txt Directory.Build.props Directory.Build.targets Directory.Packages.props global.json .editorconfig; do
        source="$root/$top"
        if [[ -e $source ]]; then
            sources+=("$source")
        fi
    done
    find "${sources[@]}" -type f -printf '%p %s %T@\n'
    command -v mpicxx || true # libhbn_mpi is built once there is an MPI
}

# CMake refuses a build folder that was made elsewhere: the clone has been moved or copied.
forget_moved_native_build() {
    local build=$root/artifacts/native-build
    if [[ -e $build/CMakeCache.txt ]] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$build/CMakeCache.txt"; then
        rm -rf "$build"
    fi
}

# build_changed PROJECT RESULT [FOLDER...]: builds PROJECT unless RESULT exists and no source changed since the last build.
# FOLDERs are sources besides the library's and the command's own.
build_changed() {
    local project=$1 result=$root/$2 stamp lock sources log
    shift 2
    stamp=$root/artifacts/${project##*/}.stamp log=$root/artifacts/${project##*/}.log
    if [[ -e $result && -e $stamp && $(list_sources "$@") == "$(<"$stamp")" ]]; then
        return
    fi

    mkdir -p "$root/artifacts"
    exec {lock}>"$root/artifacts/.lock"
    flock "$lock" # two commands started at once build once
    sources=$(list_sources "$@")
    if [[ ! -e $result || ! -e $stamp || $sources != "$(<"$stamp")" ]]; then
        ensure_prerequisites
        forget_moved_native_build
        say "building ${project##*/} ..."
        if ! dotnet build "$root/$project" -c Release -v quiet -clp:ErrorsOnly --disable-build-servers >"$log" 2>&1 </dev/null {lock}>&-; then
            cat "$log" >&2
            die "the build failed (see above)"
        fi
        printf '%s\n' "$sources" >"$stamp"
    fi
    exec {lock}>&-
}

# Below these the runtime does not even start, and says so in numbers.
check_limits() {
    local files space
    files=$(ulimit -Hn) space=$(ulimit -v)
    if [[ $files != unlimited ]] && ((files < 256)); then
        die "this shell's programs may have only $files files open at once; 256 are needed. Raise the limit: ulimit -n 4096"
    fi
    if [[ $space != unlimited ]] && ((space < 2000000)); then
        die "this shell's programs may have only $space kB of address space; 2000000 are needed to start at all. Raise the limit: ulimit -v unlimited"
    fi
}

# The command runs on the runtime that belongs to the dotnet on PATH, wherever that is installed.
use_dotnet_on_path() {
    local dotnet
    if [[ -z ${DOTNET_ROOT:-} ]] && dotnet=$(command -v dotnet) && dotnet=$(readlink -f "$dotnet") && [[ -d ${dotnet%/*}/host/fxr ]]; then
        export DOTNET_ROOT=${dotnet%/*}
    fi
}
