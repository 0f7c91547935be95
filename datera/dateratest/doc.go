// Package dateratest is a Datera storage cluster in one process, for tests and for trying things out.
//
// It speaks the REST API of the array (v2.1, v2.2 and v2.3) as its public clients know it, strictly:
// a property that the real array would not take is refused, so a client that works here has not been
// flattered. Given a [target.Backend] it serves the volumes by iSCSI too.
//
// In a test, [Start] is enough:
//
//	array := dateratest.Start(t)
//	client := connect(array.URL, "admin", "password")
//
// Faults ([Server.SetFault]) make the array misbehave in the ways that real ones do, and
// [Server.Requests] tells which calls a client made. Both can be had by HTTP, too, from the same machine: at
// /sim/faults and /sim/requests, beside the API.
//
// Where the public clients leave open how the real array behaves, the strictest behaviour that all of them can live
// with is chosen. Two things are answered that no real array does, and only when they are needed: "lun" in a volume
// whose target cannot begin at LUN 0, and "port" in a storage instance's access if it is not 3260.
package dateratest
