// Command service stands in for kube-proxy on a node of the test's cluster: it leads the one Service that pods need, that of
// the API server, to where the API server is.
//
//	service ADDRESS TARGET
package main

import (
	"fmt"
	"io"
	"net"
	"os"
)

func main() {
	address, target := os.Args[1], os.Args[2]
	listener, err := net.Listen("tcp", address)
	for err == nil {
		var client net.Conn
		if client, err = listener.Accept(); err == nil {
			go forward(client.(*net.TCPConn), target)
		}
	}
	fmt.Fprintln(os.Stderr, "service:", err)
	os.Exit(1)
}

func forward(client *net.TCPConn, target string) {
	defer client.Close()
	server, err := net.Dial("tcp", target)
	if err != nil {
		fmt.Fprintln(os.Stderr, "service:", err)
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(client, server)
}
