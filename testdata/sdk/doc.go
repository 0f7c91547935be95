// Package sdk holds the simulator of the array against the vendor's own client for Go, on which the vendor's drivers are
// built: every request as that client sends it, for each API version, in an order in which all of them can succeed, and of
// each answer the types that the client wants.
//
// The client itself is not linked: its module is not to be had from every module proxy, and a test that cannot run proves
// nothing. So calls.tsv says what it does on the wire. It was made by running every exported call of the client (release
// 1.1.16 with the four commits after it) against the simulator. What the client gets wrong by itself is in it too, with
// what is wrong; if such a call began to work, the test would say so.
package sdk
