// Command pod is all that is in the test's image: without arguments a pause
// container, with "storm RATE" a program that serves 127.0.0.1:900 and opens RATE
// connections to it per second, each for one request. Where one can't be opened
// it goes on.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "storm" {
		if err := storm(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
}

func storm(rate string) error {
	perSecond, err := strconv.Atoi(rate)
	if err != nil {
		return err
	}
	server, err := net.Listen("tcp", "127.0.0.1:900")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	for range time.Tick(time.Second / time.Duration(perSecond)) {
		go request()
	}
	return nil
}

// request leaves its TIME_WAIT at the client.
func request() {
	c, err := net.Dial("tcp", "127.0.0.1:900")
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte("ping"))
	_, _ = c.Read(make([]byte, 4))
}
