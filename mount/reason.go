package mount

import "strings"

// mountReason explains a failed mount and says what to do next, from the exit code (mount(8)) and what mount and the
// kernel said; "" when there is nothing to add.
func mountReason(code int, said, device, filesystem string, readOnly bool) string {
	has := func(texts ...string) bool {
		for _, text := range texts {
			if strings.Contains(said, text) {
				return true
			}
		}
		return false
	}
	switch {
	case has("recovery required on read", "write access unavailable, cannot proceed", "cannot mount read-only device"):
		noReplay := "norecovery"
		if filesystem == "ext4" {
			noReplay = "noload"
		}
		return "the file system was not cleanly unmounted, and replaying its journal would write to it: mount it once with write access on one host; " +
			"the mount option " + noReplay + " shows it without the changes that are only in the journal"
	case has("Structure needs cleaning", "Corruption", "corruption"):
		check := "xfs_repair -n " + device
		if filesystem == "ext4" {
			check = "e2fsck -n " + device
		}
		return "the file system is damaged and is not repaired automatically: look at it with `" + check +
			"` while it is not mounted anywhere, then repair it by hand or restore a snapshot"
	case has("unknown filesystem type"):
		return "the kernel of this host cannot mount " + filesystem + ": load its module (modprobe " + filesystem + ")"
	case has("incompatible features", "unsupported optional features", "read-only compatible features", "unknown version"):
		return "the file system has features that the kernel of this host does not know: it was made by newer tools; use a newer kernel or another volume"
	case has("already mounted or mount point busy", "Can't open blockdev", "Device or resource busy") && readOnly:
		return "it is mounted elsewhere on this host, perhaps with write access"
	case has("already mounted or mount point busy", "Device or resource busy"):
		return "it is in use on this host: mounted read-only elsewhere, or part of a multipath device"
	case has("can't read superblock", "Input/output error", "I/O error"):
		return "the device could not be read: look at dmesg and at its connection (`iscsi status`)"
	}
	return codeReason(code)
}

func codeReason(code int) string {
	switch {
	case code&1 != 0:
		return "mount was called wrongly or without the right to mount"
	case code&2 != 0:
		return "the host has no memory left"
	case code&4 != 0:
		return "an internal error of mount"
	case code&16 != 0:
		return "mount's own table in /run/mount could not be written"
	}
	return ""
}
