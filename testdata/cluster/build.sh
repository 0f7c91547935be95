#!/usr/bin/env bash
# Builds what a cluster is made of, from Go modules: Kubernetes with etcd as one binary, containerd, runc, three network
# plug-ins and what stands in for kube-proxy; and a disk image of them for the nodes. The first time takes many minutes, then Go's cache has it.
#
#   build.sh DIR    puts them into DIR/bin, the image at DIR/programs.img
set -euo pipefail
dir=$(mkdir -p "${1:?folder to build into}" && cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"
version=$(cd kubernetes && go list -m -f '{{.Version}}' k8s.io/kubernetes)
mkdir -p "$dir/bin"

say() { echo "cluster: $*" >&2; }

need() { # PROGRAM-OR-FILE PACKAGE
	[ -e "$1" ] || PATH=$PATH:/usr/sbin:/sbin type -P "$1" >/dev/null || packages+=("$2")
}

install_packages() {
	local packages=() sudo=()
	need mkfs.ext4 e2fsprogs
	need gcc gcc
	need /usr/include/stdlib.h libc6-dev
	need pkg-config pkg-config
	need /usr/include/seccomp.h libseccomp-dev
	[ ${#packages[@]} -gt 0 ] || return 0
	[ "$(id -u)" = 0 ] || sudo=(sudo)
	say "installing ${packages[*]}"
	"${sudo[@]}" apt-get -qq update
	DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
}

# build MODULE CGO NAME PACKAGE [FLAGS...]
build() {
	local module=$1 cgo=$2 name=$3 package=$4
	shift 4
	local began=$SECONDS
	(cd "$module" && CGO_ENABLED=$cgo go build -trimpath -buildvcs=false -o "$dir/bin/$name" "$@" "$package")
	say "$name ($((SECONDS - began)) s)"
}

# pack makes the disk image anew if a program is newer than it.
pack() {
	local image=$dir/programs.img
	if [ -e "$image" ] && [ -z "$(find "$dir/bin" -newer "$image")" ]; then return; fi
	rm -f "$image.draft"
	PATH=$PATH:/usr/sbin:/sbin mkfs.ext4 -q -d "$dir/bin" -m 0 -O ^has_journal "$image.draft" 700M
	mv "$image.draft" "$image"
	say "image of the programs: $(du -m "$image" | cut -f 1) MB"
}

install_packages
build . 0 service ./service
stamp=k8s.io/component-base/version
say "building Kubernetes $version, containerd and runc; the first time takes many minutes"
build kubernetes 0 kubernetes . -ldflags "-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=1 \
	-X $stamp.gitMinor=$(cut -d . -f 2 <<<"$version") -X $stamp.gitTreeState=clean"
containerd=github.com/containerd/containerd/v2
for name in containerd containerd-shim-runc-v2 ctr; do
	build containerd 0 $name $containerd/cmd/$name -tags no_btrfs,no_zfs,no_devmapper,no_tracing -ldflags "-s -w"
done
for plugin in main/loopback main/ptp ipam/host-local; do
	build containerd 0 "${plugin#*/}" github.com/containernetworking/plugins/plugins/$plugin -ldflags "-s -w"
done
# containerd gives each container a seccomp profile, and runc without seccomp refuses to run it.
build containerd 1 runc github.com/opencontainers/runc -tags seccomp,osusergo,netgo \
	-ldflags "-s -w -X main.version=$(cd containerd && go list -m -f '{{.Version}}' github.com/opencontainers/runc) -extldflags -static"
pack
