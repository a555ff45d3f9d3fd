#!/usr/bin/env bash
# Executes the Dockerfile without Docker, and uses what it makes: its lines are read and carried out in Debian roots that stand in for its base images, with this
# machine's .NET bound in or copied. Needs root and debootstrap.
#   tests/containers/run.sh [build|check] [FOLDER]
# build makes the images in FOLDER/chiseled and FOLDER/shell, check runs them; without either, both, in a folder that is removed. Ends with a line:
# containers: N passed, N failed.
#
# The stand-ins: Debian 13 for Ubuntu 24.04 (glibc 2.41 for 2.39), with the files of Microsoft's images that matter here: the SDK, or the runtime. The chiseled
# one has the files of the packages that Microsoft's has, and nothing else: no shell, no package manager.
set -euo pipefail
here=$(readlink -f "${BASH_SOURCE[0]}")
root=${here%/tests/containers/run.sh}
source "$root/build/launcher.sh"
source "$root/bench/debian13.sh"

what=all folder=
if (($#)) && [[ $1 == build || $1 == check ]]; then
    what=$1
    shift
fi
if (($#)); then
    folder=$(readlink -m "$1")
else
    [[ $what == all ]] || die "$what needs a folder; see the head of this file"
    folder=$(mktemp -d)
    trap 'rm -rf --one-file-system "$folder"' EXIT
fi
((EUID == 0)) || die "roots can be made and entered by root alone"
export PATH=$PATH:/usr/sbin:/sbin
dotnet=$(readlink -f "$(command -v dotnet)")
[[ -d ${dotnet%/*}/shared ]] || dotnet=$(dotnet --list-runtimes | sed -n 's|.*\[\(.*\)/shared/Microsoft.NETCore.App\]|\1/dotnet|p' | tail -n 1)
sdk=${dotnet%/*}

quietly() { # runs a command and shows its output only when it fails
    "$@" >"$folder/log" 2>&1 </dev/null || { cat "$folder/log" >&2; return 1; }
}

# --- Stand-ins for base images ------------------------------------------------------------------------------------------------------------------------
# runtime ROOT: the files of .NET's runtime.
runtime() {
    mkdir -p "$1/usr/share/dotnet/shared" "$1/usr/bin"
    cp -a "$sdk/dotnet" "$sdk/host" "$1/usr/share/dotnet/"
    cp -a "$sdk/shared/Microsoft.NETCore.App" "$1/usr/share/dotnet/shared/"
    ln -sf /usr/share/dotnet/dotnet "$1/usr/bin/dotnet"
}

# debian: makes FOLDER/debian, the packages that every one of Microsoft's images has; a proxy and a mirror of this machine hold there too.
debian() {
    local cached=${XDG_CACHE_HOME:-$HOME/.cache}/hpcbn/peers/trixie
    debian=$folder/debian
    [[ ! -e $debian ]] || return 0
    make_debian13 "$cached"
    cp -a "$cached" "$debian"
    cp -a /etc/apt/apt.conf.d/. "$debian/etc/apt/apt.conf.d/"
    cp -L /etc/resolv.conf /etc/hosts "$debian/etc/" 2>/dev/null || true
    in_root "$debian" 0:0 / "" /bin/sh -c 'apt-get update && apt-get install --yes --no-install-recommends ca-certificates libssl3t64 openssl'
    cp -a /etc/ssl/certs/. "$debian/etc/ssl/certs/"
}

# base IMAGE ROOT: makes a root that stands in for an image.
base() {
    local debian package file
    debian
    case $1 in
        '${DOTNET}'/sdk:10.0-noble)
            cp -a "$debian" "$2"
            mkdir -p "$2/usr/share/dotnet" "$2/root/.nuget"
            ln -sf /usr/share/dotnet/dotnet "$2/usr/bin/dotnet"
            ;;
        '${DOTNET}'/runtime:10.0-noble)
            cp -a "$debian" "$2"
            runtime "$2"
            ;;
        '${DOTNET}'/runtime:10.0-noble-chiseled)
            mkdir -p "$2"/{proc,dev,sys,tmp,etc,usr/lib64}
            chmod 1777 "$2/tmp"
            ln -s usr/lib "$2/lib"
            ln -s usr/lib64 "$2/lib64"
            # libzstd1: Debian's OpenSSL asks for it, Ubuntu's does not.
            for package in libc6 libgcc-s1 libssl3t64 libstdc++6 libzstd1 zlib1g; do
                while read -r file; do
                    file=$(readlink -f "$debian${file/#\/lib/\/usr\/lib}") # what is a link in one version is a folder in another
                    [[ ! -f $file ]] || install -D -m "$(stat -c %a "$file")" "$file" "$2${file#"$debian"}"
                done < <(chroot "$debian" dpkg -L "$package" | grep -E '\.so(\.|$)')
            done
            # The names that programs ask for.
            while read -r file; do
                [[ -e $2$file ]] || { mkdir -p "$2${file%/*}" && cp -a "$debian$file" "$2$file"; }
            done < <(cd "$debian" && find usr/lib usr/lib64 -name '*.so*' -type l -printf '/%p\n' | while read -r file; do [[ ! -e $2/${file%/*}/$(readlink "$debian$file") ]] || echo "$file"; done)
            printf 'root:x:0:0::/root:/sbin/nologin\napp:x:1654:1654::/home/app:/sbin/nologin\n' >"$2/etc/passwd"
            runtime "$2"
            ;;
        *) die "no root stands in for the image '$1'; name one in ${BASH_SOURCE[0]}" ;;
    esac
}

# in_root ROOT USER:GROUP FOLDER ENVIRONMENT COMMAND...: runs a command in a root, in mounts and an environment of its own; the SDK is bound in where it has a place.
in_root() {
    local place=$1 user=$2 where=$3 environment=$4
    shift 4
    unshare --mount --propagation private bash -c '
        place=$1 user=$2 where=$3 sdk=$4 packages=$5 environment=$6; shift 6
        for name in proc dev sys; do mkdir -p "$place/$name"; mount --rbind "/$name" "$place/$name" || exit; done
        if [[ -d $place/usr/share/dotnet && ! -e $place/usr/share/dotnet/dotnet ]]; then
            mount --bind "$sdk" "$place/usr/share/dotnet" && mount --bind "$packages" "$place/root/.nuget" || exit
        fi
        if [[ -n ${READ_ONLY:-} ]]; then
            mount --bind "$place" "$place" && mount --bind "$place/state" "$place/state" && mount -o remount,bind,ro "$place" || exit
            mount --rbind /proc "$place/proc" && mount --rbind /dev "$place/dev" || exit
        fi
        mapfile -t variables <<<"$environment"
        exec env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ${environment:+"${variables[@]}"} \
            setpriv --clear-groups unshare --root "$place" --wd "$where" --setuid "${user%%:*}" --setgid "${user##*:}" "$@"' _ "$place" "$user" "$where" "$sdk" "$HOME/.nuget" "$environment" "$@"
}

# --- Carrying out the Dockerfile ----------------------------------------------------------------------------------------------------------------------
# Each stage leaves FOLDER/NAME, its root, and FOLDER/NAME.settings: user, folder, environment, entry point.
carry_out() {
    local line word arguments stage='' place='' user=0:0 where=/ environment='' entry=''
    finish() {
        [[ -z $stage ]] || printf '%s\n' "$user" "$where" "$entry" "$environment" >"$folder/$stage.settings"
    }
    while read -r line; do
        word=${line%% *} arguments=${line#* }
        say "$line"
        case $word in
            ARG) ;; # where Microsoft's images lie
            FROM)
                finish
                stage=${arguments##* AS } place=$folder/$stage user=0:0 where=/ environment='' entry=''
                [[ ! -e $place ]] || die "'$place' is there already"
                quietly base "${arguments%% AS *}" "$place"
                # Microsoft's SDK image has ICU, its runtime images have not; the command needs none.
                [[ $arguments != */sdk:* ]] || environment=DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1
                ;;
            RUN) quietly in_root "$place" "$user" "$where" "$environment" /bin/sh -c "$arguments" ;;
            WORKDIR) where=$arguments && mkdir -p "$place$where" ;;
            USER) user=$arguments:$arguments ;;
            ENV) environment+=${environment:+$'\n'}${arguments// /$'\n'} ;;
            ENTRYPOINT) entry=$(sed 's/[][",]/ /g' <<<"$arguments" | xargs) ;;
            COPY)
                local source=$root owner='' from to
                while [[ $arguments == --* ]]; do
                    case $arguments in
                        --from=*) source=$folder/${arguments#--from=} && source=${source%% *} ;;
                        --chown=*) owner=${arguments#--chown=} && owner=${owner%% *} ;;
                    esac
                    arguments=${arguments#* }
                done
                from=${arguments% *} to=${arguments##* }
                [[ $to == /* ]] || to=$where
                mkdir -p "$place$to"
                if [[ $source == "$root" ]]; then
                    # .dockerignore's patterns are those of tar here: names at the top, and **/ for any place.
                    (cd "$root" && tar -c --exclude-from=<(sed -E '/^#/d; s|^([^*])|./\1|; s|^\*\*/||' .dockerignore) "./$from") | tar -x -C "$place$to"
                else
                    cp -a "$source/$from/." "$place$to/"
                fi
                [[ -z $owner ]] || chown -R "$owner" "$place$to"
                ;;
            *) die "the Dockerfile says $word, which ${BASH_SOURCE[0]} cannot carry out" ;;
        esac
    done < <(sed -E ':next; /\\$/{N; s/\\\n//; b next}; /^(#|$)/d' "$root/Dockerfile")
    finish
}

# --- Using the images ---------------------------------------------------------------------------------------------------------------------------------
# contained IMAGE ARGUMENTS...: the entry point with arguments, its root mounted to be read only, /state writable.
contained() {
    local image=$1 settings
    shift
    mapfile -t settings <"$folder/$image.settings"
    READ_ONLY=1 in_root "$folder/$image" "${settings[0]}" "${settings[1]}" "$(printf '%s\n' "${settings[@]:3}")" ${settings[2]} "$@"
}

check_image() {
    local image=$1 out=$folder/$1.out
    contained "$image" info >"$out" 2>&1 || { cat "$out" >&2; return 1; }
    if ! grep -q '/app/libhbn.so: loaded' "$out" || ! grep -q '^ *onednn *available' "$out"; then
        cat "$out" >&2
        say "$image: oneDNN is not available"
        return 1
    fi
    quietly contained "$image" verify --network inception-tiny --image-size 32 -b 2 || return 1
    quietly contained "$image" train --recipe quick --steps 4 --output run || return 1
    [[ -n $(find "$folder/$image/state/run" -name '*.safetensors' -user 1654) ]] || { say "$image: no checkpoint of user 1654"; return 1; }
    # An output outside the volume is refused in a sentence.
    if contained "$image" train --recipe quick --steps 1 --output /elsewhere >"$out" 2>&1 || ! grep -qi 'read-only' "$out" || grep -q '   at ' "$out"; then
        cat "$out" >&2
        say "$image: its file system can be written, or that is not said"
        return 1
    fi
    say "$image: /app has $(du -sm "$folder/$image/app" | cut -f1) MB"
}

check_chiseled() {
    [[ ! -e $folder/chiseled/bin/sh && ! -e $folder/chiseled/usr/bin/sh && ! -e $folder/chiseled/usr/bin/apt ]] || { say "the chiseled image has a shell"; return 1; }
    check_image chiseled
}

check_shell() { check_image shell; }

mkdir -p "$folder"
[[ $what == check ]] || carry_out
[[ $what != build ]] || exit 0
passed=0 failed=0
for image in chiseled shell; do
    if (set -e; "check_$image"); then
        say "$image: passed"
        passed=$((passed + 1))
    else
        say "$image: FAILED"
        failed=$((failed + 1))
    fi
done
printf 'containers: %d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
