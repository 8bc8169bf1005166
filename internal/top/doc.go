// Package top is the terminal view: reports as they come, of this kernel, of
// another twwatch or of a recording, in tables that are sorted, filtered and
// looked into by keys.
//
// It owns what is on the screen and nothing else. It gets reports that have
// been judged, and a function that lists single sockets; it keeps a bounded
// number of reports, to step back in, for as long as it runs. It asks the
// kernel nothing, judges nothing and changes nothing: the only thing it ever
// hands out is a snippet, to the terminal's clipboard, on demand.
//
// The parts: a [state] is all that a frame depends on; a [model] changes it by
// messages, keys and the mouse; view.go and the files of the single views turn
// it into lines, and do no work that grows with more than the rows shown. A
// report's rows are put in order once, when it comes. Every string of a report is
// hostile and is escaped on its way to a line, in canvas.go.
package top
