# Shared by the cross-builds (bash; sourced): packages of other architectures and releases out of the Debian archive that this machine installs from,
# in lists and folders of their own. Nothing of this machine's package system is changed.

cross_cache=${HBN_CROSS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hpcbn-cross}

cross_say() { printf 'cross: %s\n' "$*" >&2; }

cross_die() {
    cross_say "$*"
    exit 1
}

# cross_need COMMAND PACKAGE...: the commands must be there; as root the packages are installed, else named (HBN_NO_INSTALL=1: always only named).
cross_need() {
    local commands=$1 command missing=no
    shift
    for command in $commands; do
        command -v "$command" >/dev/null || missing=yes
    done
    if [[ $missing == no ]]; then
        return
    fi
    if [[ ${HBN_NO_INSTALL:-0} == 1 ]] || ((EUID != 0)); then
        cross_die "missing: one of $commands. As root, run: apt-get update && apt-get install -y --no-install-recommends $*"
    fi
    mkdir -p "$cross_cache"
    if ! { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@"; } >"$cross_cache/apt.log" 2>&1 </dev/null; then
        tail -n 20 "$cross_cache/apt.log" >&2
        cross_die "apt-get install $* failed (whole log: $cross_cache/apt.log)"
    fi
}

# cross_archive NAME TYPE RELEASE ARCHITECTURE: sets `apt_options` to lists of their own, $cross_cache/NAME, of this machine's Debian archive.
# TYPE is deb or deb-src.
cross_archive() {
    local folder=$cross_cache/$1 uri
    uri=$(apt-get indextargets --format '$(ORIGIN)|$(COMPONENT)|$(RELEASE)|$(REPO_URI)' 'Created-By: Packages' |
        sed -nE 's/^Debian\|main\|([a-z]+)\|(.*)$/\2/p' | head -n 1)
    [[ -n $uri ]] || cross_die "this machine installs from no Debian archive ('apt-get update' may not have been run): a cross-build takes libraries from one"
    mkdir -p "$folder/lists/partial" "$folder/archives/partial"
    cat >"$folder/archive.sources" <<EOF
Types: $2
URIs: $uri
Suites: $3
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
EOF
    apt_options=(-qq -o Acquire::Retries=3 -o "Dir::Etc::sourcelist=$folder/archive.sources" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$folder/lists"
        -o "Dir::Cache=$folder" -o "Dir::Cache::archives=$folder/archives" -o "APT::Architecture=$4" -o "APT::Architectures::=$4" -o APT::Sandbox::User=root)
    apt-get "${apt_options[@]}" update || cross_die "the lists of $3 ($2, $4) could not be read from this machine's Debian archive"
}

# cross_unpack FOLDER PACKAGE...: unpacks the packages of the archive last chosen, without what they depend on.
cross_unpack() {
    local folder=$1 package
    shift
    mkdir -p "$folder/packages"
    (cd "$folder/packages" && apt-get "${apt_options[@]}" download "$@") || cross_die "could not fetch: $*"
    for package in "$folder"/packages/*.deb; do
        dpkg-deb -x "$package" "$folder"
    done
}
