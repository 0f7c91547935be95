# Makes a booted machine a place where kubelet can live. What a real node keeps on its disk outlasts a power cut here, too:
# it is on /dev/vda. The programs are on /dev/vdb, which the nodes share.
set -euo pipefail
modprobe -a ext4 overlay veth
wipefs /dev/vda | grep -q . || mkfs.ext4 -q /dev/vda
mkdir -p /disk /opt/cluster
mount /dev/vda /disk
mount -o ro /dev/vdb /opt/cluster
for dir in /etc/iscsi/nodes /usr/libexec/kubernetes /var/lib/containerd /var/lib/datera-iscsi /var/lib/kubelet /var/log; do
	mkdir -p "$dir" "/disk$dir"
	mount --bind "/disk$dir" "$dir"
done
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /etc/cni/net.d /etc/containerd /etc/kubernetes
