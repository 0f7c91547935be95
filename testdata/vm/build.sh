#!/bin/bash
# Builds the image of the test machines, a kernel and an initramfs, and prints its folder.
#
# Debian bookworm's packages are downloaded and unpacked, not installed, so root is needed only to install a tool that is
# missing. The image is kept in $VM_DIR (build/vm); its name is the hash of all that it is made of, so that a second call
# finds it at once.
#
#   VM_DIR     where downloads and images are kept
#   MIRROR, SECURITY   a Debian mirror and its security archive; otherwise the host's own, if it is a Debian, or deb.debian.org
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${VM_DIR:-$here/../../build/vm}
suite=bookworm
kernel=linux-image-cloud-amd64
packages="bash bsdutils busybox-static coreutils e2fsprogs iproute2 kmod lsscsi mount multipath-tools open-iscsi tgt udev util-linux xfsprogs"
# Taken for installed: what only maintainer scripts and programs that no test runs would need.
unwanted="adduser debconf dpkg init-system-helpers initramfs-tools libconfig-general-perl libfile-find-rule-perl libicu72 \
libstdc++6 linux-base lsb-base passwd perl perl-base python3 sg3-utils sg3-utils-udev sysvinit-utils tar usrmerge"
modules="virtio_pci virtio_blk virtio_net loop overlay dummy veth sd_mod sg iscsi_tcp xfs ext4 crc32c_generic configfs
  dm_mod dm_multipath dm_round_robin dm_service_time dm_queue_length dm_flakey dm_delay scsi_debug
  target_core_mod target_core_file target_core_iblock iscsi_target_mod"

say() { echo "vm image: $*" >&2; }

# require PROGRAM-OR-FILE PACKAGE... installs the packages if the program or file is not there.
require() {
	local wanted=$1 sudo=
	shift
	if [ -e "$wanted" ] || type -P "$wanted" >/dev/null; then return; fi
	[ "$(id -u)" = 0 ] || sudo="sudo -n"
	say "$wanted is missing: installing $*"
	if ! { $sudo apt-get -qq update && $sudo apt-get -qq install -y --no-install-recommends "$@"; } >&2; then
		say "$wanted is missing; as root run: apt-get install --no-install-recommends $*"
		exit 1
	fi
}

# archives prints the pairs "MIRROR SECURITY" to try in turn.
archives() {
	local public=http://deb.debian.org/debian mirror='' security='' of uri
	if [ "$(. /etc/os-release && echo "$ID")" = debian ]; then
		while read -r of uri; do
			case $of=$uri in
			*-security/main=http*) security=${security:-$uri} ;;
			"$(. /etc/os-release && echo "$VERSION_CODENAME")"/main=http* | stable/main=http*) mirror=${mirror:-$uri} ;;
			esac
		done < <(apt-get indextargets --format '$(RELEASE)/$(COMPONENT) $(REPO_URI)' 'Created-By: Packages')
	fi
	echo "${MIRROR:-${mirror:-$public}} ${SECURITY:-${security:-$public-security}}"
	echo "$public $public-security"
}

# apt runs apt-get in a world of its own, $apt, in which no package but the unwanted ones is installed.
apt() {
	apt-get -qq -o APT::Architecture=amd64 -o APT::Architectures::=amd64 -o APT::Sandbox::User="$(id -un)" \
		-o APT::Install-Recommends=0 -o Debug::NoLocking=1 -o Dpkg::Use-Pty=0 \
		-o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferences=/dev/null \
		-o Dir::Etc::preferencesparts=/dev/null -o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status" \
		-o Dir::Cache="$apt" -o Dir::Cache::archives="$apt/archives" "$@"
}

# download fetches the packages and all they depend on, and lists the .deb files in $apt/closure.
download() {
	local mirror security package found='' keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	mkdir -p "$apt"/{lists,archives}/partial
	for package in $unwanted; do
		printf 'Package: %s\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: allowed\nVersion: 99\nDescription: -\nMaintainer: -\n\n' "$package"
	done >"$apt/status"
	while read -r mirror security; do
		say "looking for Debian $suite at $mirror"
		printf "deb [signed-by=$keyring] %s main\n" "$mirror $suite" "$security $suite-security" >"$apt/sources.list"
		if apt -o APT::Update::Error-Mode=any update >&2; then found=1 && break; fi
	done < <(archives)
	[ "$found" ] || { say "no archive can be read; set MIRROR and SECURITY" && exit 1; }
	# "Inst libc6 (2.36-9 Debian:12 [amd64])" is libc6_2.36-9_amd64.deb, and a colon in a version is written %3a
	apt -s install $packages $kernel |
		sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*\[\([^]]*\)\]).*/\1_\2_\3.deb/p' | sed 's/:/%3a/g' >"$apt/closure"
	say "downloading $(wc -l <"$apt/closure") packages, but for those of an earlier build"
	apt -y --download-only install $packages $kernel >/dev/null
}

unpack() {
	local deb
	say "unpacking"
	while read -r deb; do
		dpkg-deb --fsys-tarfile "$apt/archives/$deb" | tar -x -C "$root" --no-same-owner --exclude='./usr/share/*' \
			--exclude='*/gconv' --exclude='*/hwdb.d' --exclude=./usr/include --exclude='./dev/*'
	done <"$apt/closure"
}

# kmod runs the image's own kmod, so that the host needs none.
kmod() {
	local name=$1
	shift
	"$root/lib64/ld-linux-x86-64.so.2" --argv0 "$name" \
		--library-path "$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu" "$root/bin/kmod" "$@"
}

# keep_modules leaves of the kernel's modules those named above and what they need.
keep_modules() {
	local version tree module
	version=$(ls "$root/lib/modules")
	tree=$root/lib/modules/$version
	kmod depmod -b "$root" "$version"
	for module in $modules; do
		kmod modprobe -d "$root" -S "$version" --show-depends "$module"
	done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u >"$draft/keep"
	find "$tree" -name '*.ko' | sort | comm -23 - "$draft/keep" | xargs rm
	kmod depmod -b "$root" "$version"
	mv "$root/boot/vmlinuz-$version" "$image/vmlinuz"
	rm -r "$root/boot"
}

# configure writes what maintainer scripts would have. iscsid refuses its clients if user 0 has no name.
configure() {
	local group gid=100
	echo 'root:x:0:0:root:/root:/bin/bash' >"$root/etc/passwd"
	for group in root:0 tty:5 disk:6 lp kmem dialout cdrom tape audio video input sgx kvm render; do
		case $group in *:*) echo "${group/:/:x:}:" ;; *) echo "$group:x:$((gid++)):" ;; esac
	done >"$root/etc/group"
	printf '%s: files\n' passwd group hosts >"$root/etc/nsswitch.conf"
	mkdir -p "$root"/{proc,sys,dev,run,tmp,mnt,root,etc/iscsi,var/lib/iscsi}
	rm -rf "$root"/var/{run,lock}
	ln -s /run "$root/var/run"
	ln -s /run/lock "$root/var/lock"
	ln -sfn bash "$root/bin/sh"
	install -m 755 "$here/init" "$root/init"
	(cd "$here" && CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build -buildvcs=false -trimpath -ldflags='-s -w' -o "$root/sbin/agent" ./agent)
}

require qemu-system-x86_64 qemu-system-x86
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
image=$dir/image-$(cd "$here" && cat build.sh init agent/*.go wire/*.go | sha256sum | cut -c 1-12)
if [ -d "$image" ]; then
	echo "$image"
	exit
fi

if [ "$(uname -m)" != x86_64 ]; then
	say "the image is built on x86_64 only"
	exit 1
fi
type -P go >/dev/null || { say "go is missing" && exit 1; }
require cpio cpio
require flock util-linux
require /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
exec 9>"$dir/lock"
flock -n 9 || { say "waiting for another build" && flock 9; }
if [ ! -d "$image" ]; then
	finished=$image apt=$dir/apt draft=$dir/draft image=$dir/draft/image root=$dir/draft/root
	rm -rf "$draft"
	mkdir -p "$image" "$root"
	download
	unpack
	keep_modules
	configure
	(cd "$root" && find . -print0 | LC_ALL=C sort -z | cpio -0 -o -H newc -R 0:0 --quiet) >"$image/initrd"
	rm -rf "$dir"/image-*
	mv "$image" "$finished"
	rm -rf "$draft"
	image=$finished
	say "ready after $SECONDS s: $image, $(du -sm "$image" | cut -f 1) MB"
fi
echo "$image"
