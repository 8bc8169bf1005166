package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/internal/counters"
)

// minimal is a report with nothing but what its reader insists on, and more.
func minimal(more string) string {
	return `{"schema":"twwatch.report/v1"` + more + `}`
}

// A report from before most keys existed.
func TestDecodeOld(t *testing.T) {
	data, err := os.ReadFile("testdata/old.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	want := &Report{
		Schema: Schema, Version: "0.0.1", Host: "db-1", Kernel: "5.10.0", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), TookSeconds: 0.002,
		Verdict: Warning, Incomplete: []Gap{}, NotJudged: []string{}, Findings: []Finding{},
		Namespaces: []*Namespace{{
			Name: "host", Inode: 4026531840, Kind: "host", States: States{Established: 3, TimeWait: 7},
			Counters: counters.Set{"TW": 812}, TimeWait: TimeWait{BucketsUsed: 7, OpenedPerSecond: []uint32{}},
			Flows: []Flow{{Side: Client, Local: "10.0.0.5", Remote: "10.0.0.9", Port: 6379, States: States{TimeWait: 7}, Processes: []Process{}}},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Keys and values of later versions of the same schema.
func TestDecodeLater(t *testing.T) {
	got, err := Decode([]byte(minimal(`,"new":{"flows":[` + strings.Repeat("{},", 5000) + `{}],"deep":[[1],{"a":null}]},"version":"0.9.0",
		"namespaces":[{"name":"host","samples":[[1,2],[3,4]],"counters":{"NewCounter":5},"limits":{"tcp_new":[1,2]},
		"flows":[{"side":"middle","port":80,"rtt":{"p50":0.1}},{"port":81}]}],
		"findings":[{"severity":"info","subject":{},"new":[]}]`)))
	if err != nil {
		t.Fatal(err)
	}
	n := got.Namespaces[0]
	if n.Counters["NewCounter"] != 5 || n.Flows[0].Port != 80 || n.Flows[0].Side != Unknown || n.Flows[1].Side != Unknown || got.Findings[0].Subject.Side != "" {
		t.Errorf("got %+v", got)
	}
}

func TestDecodeForms(t *testing.T) {
	want := full(t)
	for name, data := range map[string][]byte{
		"line": encoded(t, full(t)), "indented": indented(t, full(t)),
		"CRLF": bytes.ReplaceAll(indented(t, full(t)), []byte("\n"), []byte("\r\n")),
		"zone": bytes.Replace(encoded(t, full(t)), []byte(`"time":"2026-03-14T03:15:09.265358979Z"`), []byte(`"time":"2026-03-14T04:15:09.265358979+01:00"`), 1),
	} {
		got, err := Decode(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !reflect.DeepEqual(want, got) {
			t.Errorf("%s (-want +got)\n%s", name, cmp.Diff(want, got))
		}
	}
}

func TestDecodeNewer(t *testing.T) {
	tests := []struct{ in, want string }{
		{
			`{"schema":"twwatch.report/v2","version":"3.1.0","namespaces":{"host":[]}}`,
			`written by a newer twwatch (version "3.1.0", schema "twwatch.report/v2"): update twwatch to read it`,
		},
		{`{"schema":"twwatch.report/v10"}`, `written by a newer twwatch (unknown version, schema "twwatch.report/v10"): update twwatch to read it`},
		{`{"schema":"twwatch.report/v2","version":{"major":3}}`, `unknown version`},
		{`{"schema":"twwatch.report/v2","version":"\u001b[2J` + strings.Repeat("x", 9999) + `"}`, `version "\u001b[2Jxxx`},
		{`{"schema":"twwatch.report/v2","namespaces":[` + strings.Repeat("{},", 5000) + `{}]}`, `newer`},
	}
	for _, tt := range tests {
		_, err := Decode([]byte(tt.in))
		var newer *NewerError
		if !errors.As(err, &newer) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.60s: got %v, want %s", tt.in, err, tt.want)
		}
		checkLine(t, err)
	}
}

func TestDecodeForeign(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", "not a twwatch report: it is empty"},
		{"<html>\n<body>", `not a twwatch report: it starts with "<html>\n<body>"`},
		{"\x7fELF\x02\x01\x01\x00", `it starts with "\u007fELF\u0002\u0001\u0001\u0000"`},
		{`{"a":1}`, `it starts with "{\"a\":1}"`},
		{`{"schema":"other/v1"}`, `it starts with`},
		{`{"schema":7}`, `it starts with`},
		{`[1,2,3]`, `it starts with`},
		{`null`, `it starts with "null"`},
		{`{"a":`, `it starts with`},
		{strings.Repeat("\u202e", 500), `…`},
	}
	for _, tt := range tests {
		_, err := Decode([]byte(tt.in))
		var foreign *NotReportError
		if !errors.As(err, &foreign) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.60q: got %v, want %s", tt.in, err, tt.want)
		}
		checkLine(t, err)
	}
}

func TestDecodeInvalid(t *testing.T) {
	flows := func(n int) string {
		return `,"namespaces":[{"flows":[` + strings.Repeat(`{},`, n-1) + `{}]}]`
	}
	if _, err := Decode([]byte(minimal(flows(MaxFlows)))); err != nil {
		t.Errorf("%d flows: %v", MaxFlows, err)
	}
	if _, err := Decode([]byte(minimal(`,"host":"` + strings.Repeat("x", MaxString) + `"`))); err != nil {
		t.Errorf("a string of %d bytes: %v", MaxString, err)
	}
	tests := []struct{ more, want string }{
		{flows(MaxFlows + 1), "flows: more than 1000 elements"},
		{strings.Replace(flows(MaxFlows+1), `"flows"`, `"FLOWS"`, 1), "flows: more than 1000 elements"},
		{strings.Replace(flows(MaxFlows+1), `"flows"`, `"fl\u006fws" `, 1), "flows: more than 1000 elements"},
		{`,"namespaces":[` + strings.Repeat(`{},`, MaxNamespaces) + `{}]`, "namespaces: more than 1024 elements"},
		{`,"namespaces":[` + strings.TrimSuffix(strings.Repeat(`{"flows":[`+strings.Repeat("{},", 900)+`{}]},`, 200), ",") + `]`, "more than 131072 rows in all"},
		{`,"namespaces":[{"sockets":[` + strings.Repeat(`{},`, MaxSampledSockets) + `{}]}]`, "sockets: more than 10000 elements"},
		{`,"namespaces":[{"sockets_of":-1}]`, "namespaces[0].sockets_of: -1 is less than nothing"},
		{`,"namespaces":[{"sockets":[{"remote":"` + strings.Repeat("x", MaxString+1) + `"}]}]`, "sockets[0].remote: a string of 4097"},
		{`,"namespaces":[{"counters":{` + strings.Repeat(`"a":1,`, 1100) + `"b":1}}]`, "counters: more than 1024 elements"},
		{`,"namespaces":[null]`, "namespaces[0]: null"},
		{`,"host":"` + strings.Repeat("x", MaxString+1) + `"`, "host: a string of 4097 bytes: at most 4096 are allowed"},
		{`,"not_judged":["a","` + strings.Repeat("x", MaxString+1) + `"]`, "not_judged[1]: a string of 4097"},
		{`,"namespaces":[{"counters":{"` + strings.Repeat("x", MaxString+1) + `":1}}]`, "namespaces[0].counters: a key of 4097"},
		{`,"verdict":"fine"`, `verdict: unknown severity "fine"`},
		{`,"findings":[{"severity":"info"},{"severity":"dire\u001b"}]`, `findings[1].severity: unknown severity "dire\u001b"`},
		{`,"findings":[{}]`, `findings[0].severity: unknown severity ""`},
		{`,"namespaces":[{"states":{"time_wait":4294967295}}]`, "namespaces[0].states.time_wait: 4294967295 sockets are more than a kernel holds"},
		{`,"namespaces":[{"states":{"time_wait":-1}}]`, "time_wait"},
		{`,"namespaces":[{"flows":[{"ports":{"free":-1}}]}]`, "namespaces[0].flows[0].ports.free: -1 is less than nothing"},
		{`,"namespaces":[{"flows":[{"ports":{"seconds_to_exhaustion":-5}}]}]`, "seconds_to_exhaustion: -5"},
		{`,"namespaces":[{"omitted":{"flows":9223372036854775807}}]`, "omitted.flows: 9223372036854775807 is no count"},
		{`,"took_seconds":1e300`, "took_seconds: 1e+300 is no measurement"},
		{`,"took_seconds":1e999`, "took_seconds"},
		{`,"namespaces":[{"flows":[{"port":70000}]}]`, "port"},
		{`,"time":"yesterday\u001b"`, "yesterday"},
		{`,"time":"9999-12-31T23:59:59-10:00"`, "time: the year 10000 is out of range"},
		{`,"namespaces":[{"limits":{"ip_local_port_range":[5,4]}}]`, "port range"},
		{`,"x":` + strings.Repeat("[", 101) + strings.Repeat("]", 101), "more than 100 brackets deep"},
		{`,"host":`, "invalid character"},
		{`} {`, "invalid character"},
	}
	for _, tt := range tests {
		_, err := Decode([]byte(minimal(tt.more)))
		var invalid *InvalidError
		if !errors.As(err, &invalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.60s: got %v, want %s", tt.more, err, tt.want)
		}
		checkLine(t, err)
	}
	if _, err := Decode(bytes.Repeat([]byte(" "), MaxEncoded+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: got %v", err)
	}
}

// checkLine holds an error to one short printable line.
func checkLine(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	message := err.Error()
	if i := strings.IndexFunc(message, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 || len(message) > 800 {
		t.Errorf("not a short printable line (byte %d of %d): %q", i, len(message), message)
	}
}

// 3 MiB of empty rows would be hundreds of megabytes of the model's structs.
func TestDecodeHostileMemory(t *testing.T) {
	for _, key := range []string{"namespaces", "findings", "incomplete"} {
		data := []byte(minimal(`,"` + key + `":[` + strings.Repeat("{},", 1<<20) + `{}]`))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Decode(data)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: no error", key)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
			t.Errorf("%s: %d bytes were allocated to refuse it", key, used)
		}
	}
}

// Whatever Decode returns, encoding and decoding keep it.
func FuzzDecode(f *testing.F) {
	line := encodedFull(f)
	f.Add(line)
	f.Add([]byte(minimal("")))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data)
		checkLine(t, err)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := Encode(&b, r); err != nil {
			if errors.Is(err, ErrTooLarge) {
				return // escapes take more room
			}
			t.Fatalf("what was read can't be written: %v", err)
		}
		again, err := Decode(b.Bytes())
		if err != nil {
			t.Fatalf("what was written can't be read: %v\n%s", err, b.Bytes())
		}
		if !reflect.DeepEqual(r, again) {
			t.Errorf("(-first +second)\n%s", cmp.Diff(fmt.Sprintf("%+v", r), fmt.Sprintf("%+v", again)))
		}
		if i := bytes.IndexFunc(bytes.TrimSuffix(b.Bytes(), []byte("\n")), func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("byte %d can't be shown: %q", i, b.Bytes())
		}
	})
}

func encodedFull(tb testing.TB) []byte {
	tb.Helper()
	data, err := os.ReadFile("testdata/full.json")
	if err != nil {
		tb.Fatal(err)
	}
	return data
}
