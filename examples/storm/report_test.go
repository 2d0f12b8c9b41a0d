package main

import (
	"bytes"
	"encoding/json"
	"image/png"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestFiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	runs := []recording{
		moves(storm, 100, 0, func(int) float64 { return rng.Float64() }, 0.5),
		moves(funnel, 100, 1012, spread, 0.25),
		comesOver(100, spread, 0.25),
	}
	dir := t.TempDir()
	if err := sideBySide(runs, runs[1].funnel).writeFiles(dir); err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}

	img, err := png.Decode(bytes.NewReader(read("storm.png")))
	if err != nil {
		t.Fatal(err)
	}
	painted := map[[3]uint32]int{}
	for x := range img.Bounds().Dx() {
		for y := range img.Bounds().Dy() {
			r, g, b, _ := img.At(x, y).RGBA()
			painted[[3]uint32{r >> 8, g >> 8, b >> 8}]++
		}
	}
	for name, c := range map[string][3]uint32{"blue": {0x25, 0x63, 0xeb}, "green": {0x16, 0xa3, 0x4a}, "orange": {0xea, 0x58, 0x0c}} {
		if painted[c] < 500 {
			t.Errorf("%d pixels of the chart are %s", painted[c], name)
		}
	}

	var doc struct {
		Runs []map[string]any `json:"runs"`
	}
	if err := json.Unmarshal(read("storm.json"), &doc); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"name", "clients", "seconds_to_move", "peak_reconnects_per_s", "peak_evictions_per_window",
		"disconnects_per_client_max", "disconnects_per_client_mean", "unplanned_disconnects", "never_back",
		"away_ms_p50", "away_ms_p99", "away_ms_max", "messages_lost", "asked", "late_closes_per_window"} {
		if _, ok := doc.Runs[1][key]; !ok {
			t.Errorf("storm.json has no %s", key)
		}
	}
	if doc.Runs[0]["name"] != "storm" || doc.Runs[1]["name"] != "funnel" || doc.Runs[2]["name"] != "asked" {
		t.Errorf("runs: %v", doc.Runs)
	}

	page := string(read("storm.html"))
	if !strings.Contains(page, "<svg") || !strings.Contains(page, "29.9") {
		t.Error("the page has no chart or no table")
	}
	if strings.Contains(page, "font-family:Liberation Sans;") {
		t.Error("where this font is missing the chart's text would be in another style: name others after it")
	}
	for _, outside := range []string{"src=", "<link", "@import", "url("} {
		if strings.Contains(page, outside) {
			t.Errorf("the page needs something from outside: %s", outside)
		}
	}
}

func TestTable(t *testing.T) {
	r := moves(funnel, 100, 1012, spread, 0.25)
	var b strings.Builder
	if err := printTable(&b, table([]figures{r.measure(), r.measure(), comesOver(100, spread, 0.25).measure()}, r.funnel)); err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(strings.TrimRight(b.String(), "\n"), "\n") {
		if utf8.RuneCountInString(line) > 80 {
			t.Errorf("wider than a terminal: %q", line)
		}
	}
	if !strings.Contains(b.String(), "most let go in any 3s (cap 10, 11 at an edge)") {
		t.Error(b.String())
	}
}

// TestTitlesFit: where the chart's font is missing, a line of a title has room for 46 letters.
func TestTitlesFit(t *testing.T) {
	var titles []string
	for _, sc := range scenarios {
		titles = append(titles, sc.said)
	}
	for title := range maps.Values(said) {
		titles = append(titles, title)
	}
	for _, title := range titles {
		if utf8.RuneCountInString(title) > 46 {
			t.Errorf("%q would be cut in the page", title)
		}
	}
}
