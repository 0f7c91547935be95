#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that the tests need, if they are missing.
set -euo pipefail

packages=()
need() { # PROGRAM PACKAGE
	PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || packages+=("$2")
}
need gcc gcc
need qemu-system-x86_64 qemu-system-x86
need cpio cpio
need losetup mount
need mkfs.xfs xfsprogs
need mkfs.ext4 e2fsprogs
[ -e /usr/include/stdlib.h ] || packages+=(libc6-dev)
[ ${#packages[@]} -gt 0 ] || exit 0

sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)
if ! command -v apt-get >/dev/null; then
	echo "tools.sh: missing, and there is no apt-get to install them: ${packages[*]}" >&2
	exit 1
fi
echo "installing ${packages[*]}"
"${sudo[@]}" apt-get -qq update
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
