// Package record keeps reports in files and reads them back.
//
// A recording is one report a line, gzip if its name says so; what it holds is
// the report of the API and of --output=json, so that a file of those is a
// recording too. A [Writer] owns the file that it made, until Close. A source
// made by [Reports] opens its file anew each time it is ranged over, and
// yields reports that belong to the caller.
//
// The package never overwrites a file, never appends to one and never deletes
// one. It does not judge the reports, and does not wait for more of them at
// the end of a file.
package record
