package truth

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
)

// TestPagePicture has the real daemon serve the recorded incident up to its worst
// moment, and takes the picture in README, which is to be small; it is kept where
// TWWATCH_PICTURE says (scripts/picture-page).
func TestPagePicture(t *testing.T) {
	t.Parallel()
	lab.Require(t, "netns")
	const worst, most = 38, 150_000
	packed := must[[]byte](t)(os.ReadFile("../top/testdata/incident.jsonl.gz"))
	lines := bufio.NewReader(must[*gzip.Reader](t)(gzip.NewReader(bytes.NewReader(packed))))
	var reports, last []byte
	for range worst {
		last = must[[]byte](t)(lines.ReadBytes('\n'))
		reports = append(reports, last...)
	}
	shown := must[*snapshot.Report](t)(snapshot.Decode(last))

	// A pipe that stays open is a recording that has not ended.
	pipe := filepath.Join(t.TempDir(), "reports")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ns := lab.NewT(t)
	serve(t, ns, "--source="+pipe)
	feed := must[*os.File](t)(os.OpenFile(pipe, os.O_WRONLY, 0))
	half := bytes.LastIndexByte(reports[:len(reports)-1], '\n') + 1
	if _, err := feed.Write(reports[:half]); err != nil {
		t.Fatal(err)
	}
	b := open(t, ns, "http://"+pageAddress+"/")
	b.looks("light", 1180, 1790)
	b.eventually(`document.querySelectorAll(".row").length > 0`)
	if _, err := feed.Write(reports[half:]); err != nil { // the rates are those since the report before
		t.Fatal(err)
	}
	b.shows(shown)
	if b.seen("#banner") {
		t.Errorf("the page says %q", b.text("#banner"))
	}
	b.eventually(`document.querySelectorAll("#history-charts figure").length === 4`)
	b.quiet()
	picture := small(t, must[[]byte](t)(chromedp.Run(b.ctx, chromedp.CaptureScreenshot())))
	if len(picture) > most {
		t.Errorf("the picture has %d bytes, want at most %d", len(picture), most)
	}
	if file := os.Getenv("TWWATCH_PICTURE"); file != "" {
		if err := os.WriteFile(file, picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	// A recording's end is no failure, and said.
	if err := feed.Close(); err != nil {
		t.Fatal(err)
	}
	b.eventually(`document.body.dataset.link === "ended" && document.querySelector("#banner").checkVisibility()`)
	if got := b.text("#banner"); !strings.HasPrefix(got, "The recording has ended. This is its last report, of 2026-") || b.counts()["close_wait"] != "20" {
		t.Errorf("at the end: %q", got)
	}
	b.quiet()
}

// small writes a PNG anew with 256 colours. Of those that look alike, which are the
// edges of letters for the most part, the most frequent stands for all.
func small(t *testing.T, data []byte) []byte {
	t.Helper()
	img := must[image.Image](t)(png.Decode(bytes.NewReader(data)))
	r := img.Bounds()
	count := map[color.RGBA]int{}
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			count[color.RGBAModel.Convert(img.At(x, y)).(color.RGBA)]++
		}
	}
	alike := map[color.RGBA]int{}
	var palette color.Palette
	for _, c := range slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int { return count[b] - count[a] }) {
		look := color.RGBA{c.R / 16, c.G / 16, c.B / 16, c.A}
		if alike[look]++; alike[look] == 1 && len(palette) < 256 {
			palette = append(palette, c)
		}
	}
	out := image.NewPaletted(r, palette)
	draw.Draw(out, r, img, r.Min, draw.Src) // takes the nearest colour
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, out); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
