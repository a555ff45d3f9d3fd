#!/usr/bin/env bash
# Collects libhbn and the libraries it needs that a bare system lacks, with their licences.
#   bundle.sh LIBHBN FOLDER      writes FOLDER/native and FOLDER/licenses
# libhbn's RPATH is its own folder and holds for what its dependencies need too, so everything is found beside it without patching.
set -euo pipefail
library=$1 folder=$2
wanted='libdnnl|libgomp|libOpenCL'

rm -rf "$folder"
mkdir -p "$folder/native" "$folder/licenses"
strip --strip-unneeded -o "$folder/native/${library##*/}" "$library"

found=$(ldd "$library")
if grep 'not found' <<<"$found" >&2; then
    echo "bundle: $library needs what this system lacks (see above)" >&2
    exit 1
fi
while read -r name path; do
    real=$(readlink -f "$path")
    cp "$real" "$folder/native/$name"
    chmod 644 "$folder/native/$name"
    package=$(dpkg-query --search "$real" 2>/dev/null || dpkg-query --search "${real#/usr}" 2>/dev/null || true)
    package=${package%%:*}
    copyright=/usr/share/doc/$package/copyright
    if [[ -z $package || ! -e $copyright ]]; then
        echo "bundle: no licence text found for $path; it belongs to no installed Debian package" >&2
        exit 1
    fi
    cp "$copyright" "$folder/licenses/$package-copyright.txt"
done < <(sed -nE "s/^[[:space:]]*(($wanted)[^ ]*) => ([^ ]+) .*/\1 \3/p" <<<"$found")
[[ -e $(compgen -G "$folder/native/libdnnl.so.*") ]] || { echo "bundle: $library is not linked with oneDNN" >&2; exit 1; }
for text in Apache-2.0 GPL-3; do
    cp "/usr/share/common-licenses/$text" "$folder/licenses/$text.txt"
done
