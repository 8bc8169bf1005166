// Package sandbox gives up, for good and for the whole process, the system
// calls that a daemon which only looks has no use for: starting programs, and
// reaching into other processes. It owns nothing: what is given up is the
// kernel's to remember, and lasts as long as the process and its children.
//
// systemd and container runtimes can't do the first for it: they start the
// program with execve under the very filter that they give it, so that filter
// has to allow it. The package doesn't restrict files, sockets or namespaces;
// that is for whoever starts the program.
package sandbox
