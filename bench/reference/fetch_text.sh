#!/usr/bin/env bash
# Writes the text that merging_text_bench learns from: the Jargon File 4.4.7, which is in the public domain, out of
# Debian's package dict-jargon, of a pinned version.   fetch_text.sh FILE
set -euo pipefail
target=$(realpath -m "$1")
package=dict-jargon_4.4.7-3.1_all.deb
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -q -o APT::Sandbox::User=root dict-jargon=4.4.7-3.1 > /dev/null
echo "405f8168d7994ed2cb71407bb95493daec2e9aa66fc0461dafa74a9d6728a8c1  $package" | sha256sum --check --quiet
dpkg-deb -x "$package" .
gzip -dc < usr/share/dictd/jargon.dict.dz > "$target"
echo "$target: $(stat -c %s "$target") bytes of the Jargon File"
