// Package draw turns numbers and host-supplied strings into text for a
// terminal: counts, rates, durations, shares, sparklines, columns.
//
// It owns the way a number looks, the escaping that makes a foreign string
// harmless, the width of text in columns, and a palette of five styles. All
// functions are pure, and what they return belongs to the caller.
//
// A number is never rounded into another claim: a share below 1 is never
// "100 %", what is above 0 is never "0".
//
// The package does not lay out a report, does not know what a value means, and
// does not look at the terminal or the environment by itself (see [Detect]).
package draw
