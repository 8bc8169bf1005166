package diagnose

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		if err := os.WriteFile(path+".got", []byte(got), 0o644); err != nil {
			t.Error(err)
		}
		t.Errorf("%s (-want +got), see %s.got:\n%s", path, path, diff)
	}
}

// library is the real one.
func library(t *testing.T) *advice.Library {
	t.Helper()
	l, err := advice.Load()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// fullText is all that findings say.
func fullText(findings []snapshot.Finding) string {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%s %s\n%s\n", f.Severity, f.ID, f.Summary)
		if f.Subject != (snapshot.Subject{}) {
			fmt.Fprintf(&b, "subject: %s\n", draw.Escape(fmt.Sprintf("%+v", f.Subject)))
		}
		if f.BecauseOf != "" {
			fmt.Fprintf(&b, "because of %s\n", f.BecauseOf)
		}
		for _, e := range f.Evidence {
			fmt.Fprintf(&b, "  %s: %v %s (%s)\n", e.What, e.Value, e.Unit, e.Source)
		}
		for _, r := range f.Recommendations {
			fmt.Fprintf(&b, "* %s: %s\n  %s\n", r.ID, r.Title, r.Do)
			if r.Snippet != "" {
				fmt.Fprintf(&b, "    %s\n", strings.ReplaceAll(r.Snippet, "\n", "\n    "))
			}
			if r.Effect != "" {
				fmt.Fprintf(&b, "  effect: %s\n", r.Effect)
			}
			for _, c := range r.Caveats {
				fmt.Fprintf(&b, "  - %s\n", c)
			}
			for _, ref := range r.References {
				fmt.Fprintf(&b, "  %s\n", ref)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
