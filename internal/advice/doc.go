// Package advice is the knowledge: services and the ports they customarily
// have, the runtimes that a process shows by its names, remedies with their
// settings, caveats and sources, and the topics that `twwatch explain` teaches.
//
// It owns data in embedded YAML, one file a subject, to which an operator's own
// files may be added. A [Library] is read and checked once by [Load], and is
// immutable afterwards. The package asks the host nothing: what it says about
// one is filled in from the numbers that the caller hands over, and a snippet
// takes nothing but numbers, ports and parsed addresses.
//
// docs/advice.md and docs/tcp.md are made of the same data.
package advice

//go:generate go test -run=^TestDocuments$ -count=1 . -update
