//go:build !linux

package lab

import (
	"context"
	"net/netip"
)

// Elsewhere than on Linux nothing can be made, so no value of these types ever
// exists: New and Here fail, and the methods are there to compile.
type (
	Namespace struct{}
	Server    struct{}
	Conn      struct{}
	Pair      struct{ Client, Server *Conn }
	Filled    struct{ Rows int }
)

var errOther = &Error{"use a network namespace", ErrUnsupported, "this operating system has none"}

func New(Options) (*Namespace, error)  { return nil, errOther }
func Here(Options) (*Namespace, error) { return nil, errOther }
func Inside() bool                     { return false }
func Prepare() error                   { return errOther }

func InPrivateNamespace(context.Context, []string, Stdio) (int, error) { return -1, errOther }

func userNamespaces(context.Context) error { return errOther }

func (*Namespace) Close() error                        { return errOther }
func (*Namespace) Path() string                        { return "" }
func (*Namespace) FD() int                             { return -1 }
func (*Namespace) Do(func() error) error               { return errOther }
func (*Namespace) Go(func() error) (wait func() error) { return func() error { return errOther } }
func (*Namespace) Sysctl(string, string) error         { return errOther }
func (*Namespace) ReadSysctl(string) (string, error)   { return "", errOther }
func (*Namespace) States() (map[int]int, error)        { return nil, errOther }
func (*Namespace) TimeWaits() (int, error)             { return 0, errOther }
func (*Namespace) Counter(string, string) (int64, error) {
	return 0, errOther
}

func (*Namespace) AddAddress(netip.Prefix) error           { return errOther }
func (*Namespace) AddAddressTo(string, netip.Prefix) error { return errOther }
func (*Namespace) AddSink(string, ...netip.Prefix) error   { return errOther }
func (*Namespace) AddRoute(netip.Prefix, string) error     { return errOther }
func (*Namespace) AddVeth(string, netip.Prefix, *Namespace, string, netip.Prefix) error {
	return errOther
}

func (*Namespace) Command(context.Context, string, ...string) (string, error) {
	return "", errOther
}

func (*Namespace) Listen(netip.AddrPort, ListenOptions) (*Server, error) { return nil, errOther }
func (*Namespace) Open(netip.AddrPort, ConnOptions) (*Conn, error)       { return nil, errOther }
func (*Namespace) Bind(netip.AddrPort, ConnOptions) (*Conn, error)       { return nil, errOther }
func (*Namespace) Pair(*Server, ConnOptions) (*Pair, error)              { return nil, errOther }
func (*Namespace) Run(context.Context, Storm) (Result, error)            { return Result{}, errOther }
func (*Namespace) FillTimeWait(context.Context, Fill) (*Filled, error)   { return nil, errOther }

func (*Namespace) Connects(netip.AddrPort, ConnOptions, int) (int, func(), error) {
	return 0, func() {}, errOther
}

func (*Filled) Rearm(context.Context) (int, error) { return 0, errOther }
func (*Filled) Keep(context.Context) error         { return errOther }

func (*Server) Addr() netip.AddrPort   { return netip.AddrPort{} }
func (*Server) Accepted() int          { return 0 }
func (*Server) Closed() int            { return 0 }
func (*Server) Held() int              { return 0 }
func (*Server) Release() error         { return errOther }
func (*Server) Err() error             { return errOther }
func (*Server) Accept() (*Conn, error) { return nil, errOther }
func (*Server) Close() error           { return errOther }

func (*Conn) FD() int                 { return -1 }
func (*Conn) Local() netip.AddrPort   { return netip.AddrPort{} }
func (*Conn) Remote() netip.AddrPort  { return netip.AddrPort{} }
func (*Conn) Inode() (uint64, error)  { return 0, errOther }
func (*Conn) Cookie() (uint64, error) { return 0, errOther }
func (*Conn) State() (int, error)     { return 0, errOther }
func (*Conn) Write([]byte) error      { return errOther }
func (*Conn) ReadFull([]byte) error   { return errOther }
func (*Conn) Drain() (int, error)     { return 0, errOther }
func (*Conn) Shutdown() error         { return errOther }
func (*Conn) Deafen(bool) error       { return errOther }
func (*Conn) Close() error            { return errOther }
func (*Conn) Reset() error            { return errOther }
