# Sourced by bench/peers/run.sh and bench/onednn3.sh, with build/launcher.sh before it: a minimal Debian 13 root on an older system, for what needs its
# libraries. Making one needs root, debootstrap and 250 MB.

# make_debian13 FOLDER: makes the root unless it is there.
make_debian13() {
    local folder=$1 script mirror
    if has_new_libstdcxx "$folder"; then
        return
    fi
    ((EUID == 0)) || die "making a Debian 13 root in '$folder' needs root"
    command -v debootstrap >/dev/null || die "debootstrap is missing. Run: apt-get install debootstrap"
    say "making a Debian 13 root in $folder ..."
    rm -rf --one-file-system "$folder"
    mkdir -p "${folder%/*}"
    script=/usr/share/debootstrap/scripts/trixie
    [[ -e $script ]] || script=/usr/share/debootstrap/scripts/sid # an older debootstrap does not know the name
    # The mirror this system installs from; on another distribution DEBIAN_MIRROR has to name one of Debian.
    mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 2>/dev/null | grep -v security | head -n 1)}
    [[ -n $mirror ]] || die "no Debian mirror is known here; name one in DEBIAN_MIRROR"
    debootstrap --variant=minbase --include=libstdc++6 trixie "$folder" "$mirror" "$script" >"${folder%/*}/debootstrap.log" 2>&1 ||
        die "debootstrap failed (log: ${folder%/*}/debootstrap.log)"
}

# has_new_libstdcxx ROOT: whether the C++ library there is GCC 13's or newer ("" is this system).
has_new_libstdcxx() { grep -qs GLIBCXX_3.4.32 "$1"/usr/lib/*/libstdc++.so.6 "$1"/usr/lib64/libstdc++.so.6 "$1"/usr/lib/libstdc++.so.6; }

# in_debian13 FOLDER SOURCE=TARGET... -- COMMAND...: runs a command in the root, with folders of this system bound in. The mounts belong to a
# namespace of their own and end with it; the environment is the command's own (use env).
in_debian13() {
    local folder=$1 binds=()
    shift
    while [[ $1 != -- ]]; do
        mkdir -p "$folder/${1#*=}"
        binds+=("$1")
        shift
    done
    shift
    PATH=$PATH:/usr/sbin:/sbin unshare --mount --propagation private bash -c '
        folder=$1 count=$2; shift 2
        for place in proc dev sys; do mount --rbind "/$place" "$folder/$place" || exit; done
        for ((; count > 0; count--)); do mount --bind "${1%%=*}" "$folder/${1#*=}" || exit; shift; done
        exec chroot "$folder" "$@"' _ "$folder" "${#binds[@]}" "${binds[@]}" "$@"
}
