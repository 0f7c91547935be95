#!/usr/bin/env bash
# Takes a real Redis out of the packages of this Debian or Ubuntu, for an image on nodes that have no registry.
#
#   redis.sh DIR    puts redis-server, redis-cli and the libraries that they need into DIR, as in a root directory
set -euo pipefail
dir=${1:?folder to put it into}
[ ! -e "$dir" ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{archives/partial,root} "$(dirname "$dir")"
chmod -R o+rx "$work" # apt downloads as a user of its own

# Taken for installed, as none of them runs here. All else that Redis needs is downloaded, whatever this host has.
for package in adduser debconf init-system-helpers lsb-base passwd perl perl-base sysvinit-utils; do
	printf 'Package: %s\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: allowed\nVersion: 99\nDescription: -\nMaintainer: -\n\n' $package
done >"$work/status"
apt-get -qq -y --download-only --no-install-recommends -o Debug::NoLocking=1 -o Dir::State::status="$work/status" \
	-o Dir::Cache::archives="$work/archives" install redis-server >/dev/null
for deb in "$work"/archives/*.deb; do
	dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$work/root" --no-same-owner --keep-directory-symlink
done

# Programs and loader to their places, each library beside the loader's default path.
root=$work/root draft=$work/draft
mkdir -p "$draft"/{lib64,lib,usr/bin}
libraries=$(find "$root" -type d -name x86_64-linux-gnu | paste -sd :)
loader=$(find "$root" -name ld-linux-x86-64.so.2 | head -1)
cp -L "$loader" "$draft/lib64/"
for program in redis-server redis-cli; do
	cp -L "$root/usr/bin/$program" "$draft/usr/bin/"
	"$loader" --library-path "$libraries" --list "$draft/usr/bin/$program" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' |
		xargs -I{} cp -L {} "$draft/lib/"
done
mv "$draft" "$dir"
