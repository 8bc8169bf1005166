// Package truth holds the tests that compare what twwatch shows with what the
// kernel does: real sockets in a fresh network namespace on one side, an
// independent witness (ss, the number of connect() calls granted, a generator
// of known rate) on the other. It has no code of its own.
package truth
