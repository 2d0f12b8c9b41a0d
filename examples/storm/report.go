package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/sluice-proxy/sluice/rollout/units"
)

// row is one line of the table: the same figure of every run.
type row struct {
	Label  string
	Values []string
}

// table is what is printed and shown on the page.
func table(runs []figures, limit units.Funnel) []row {
	number := func(n int) string { return strconv.Itoa(n) }
	secs := func(s float64) string { return fmt.Sprintf("%.1f", s) }
	lines := []struct {
		label string
		value func(figures) string
	}{
		{"", func(f figures) string { return f.Name }},
		{"slowest echo, milliseconds", func(f figures) string { return number(f.SlowestEcho) }},
		{"attempts to connect that failed", func(f figures) string { return number(f.Refused) }},
		{"milliseconds without a connection, half the clients", func(f figures) string { return number(f.AwayP50) }},
		{"– 99 % of the clients, at most", func(f figures) string { return number(f.AwayP99) }},
		{"– the longest", func(f figures) string { return number(f.AwayMax) }},
		{"messages lost", func(f figures) string { return number(f.Lost) }},
		{"– heard, each once", func(f figures) string { return number(f.Heard) }},
		{"– came twice, counted once", func(f figures) string { return number(f.Twice) }},
		{"seconds to move, first let go to last return", func(f figures) string { return secs(f.SecondsToMove) }},
		{"seconds from the command to the last return", func(f figures) string { return secs(f.SecondsFromCommand) }},
		{"most reconnects in one second", func(f figures) string { return number(f.PeakReconnects) }},
		{fmt.Sprintf("most let go in any %s (cap %d, %d at an edge)", limit.Every, limit.Close, limit.Close+1), func(f figures) string { return number(f.PeakEvictions) }},
		{"– too many by so much, if clients look late", func(f figures) string { return f.late() }},
		{"asked to come over, per client, mean", func(f figures) string { return fmt.Sprintf("%.2f", float64(f.Asked)/float64(f.Clients)) }},
		{"disconnects per client, mean", func(f figures) string { return fmt.Sprintf("%.2f", f.DisconnectAvg) }},
		{"– most", func(f figures) string { return number(f.DisconnectMax) }},
		{"– that were not the funnel's", func(f figures) string { return number(f.Unplanned) }},
		{"clients", func(f figures) string { return number(f.Clients) }},
		{"– never back", func(f figures) string { return number(f.NeverBack) }},
	}
	var rows []row
	for _, line := range lines {
		r := row{Label: line.label}
		for _, f := range runs {
			r.Values = append(r.Values, line.value(f))
		}
		rows = append(rows, r)
	}
	return rows
}

// late is LateCloses where there is a cap.
func (f figures) late() string {
	if f.Name == storm {
		return "–"
	}
	return strconv.Itoa(f.LateCloses)
}

// scenarioTable has a row per scenario.
func scenarioTable(all []scenarioFigures, limit units.Funnel) []row {
	rows := []row{{"", []string{"clients", "took", "peak/" + limit.Every.String(), "back/s", "mean", "most", "lost", "refused", "away"}}}
	for _, f := range all {
		values := []string{fmt.Sprintf("%.1f", f.SecondsToMove)}
		for _, n := range []int{f.PeakEvictions, f.PeakReconnects} {
			values = append(values, strconv.Itoa(n))
		}
		values = append(values, fmt.Sprintf("%.2f", float64(f.Planned)/float64(f.Clients)))
		for _, n := range []int{f.PlannedMax, f.Unplanned, f.Refused, f.NeverBack} {
			values = append(values, strconv.Itoa(n))
		}
		rows = append(rows, row{f.Scenario, append([]string{strconv.Itoa(f.Clients)}, values...)})
	}
	return rows
}

func printTable(w io.Writer, rows []row) error {
	wide, between := 0, 3
	for _, r := range rows {
		wide = max(wide, utf8.RuneCountInString(r.Label))
		if len(r.Values) > 4 {
			between = 2 // a terminal has 80 columns
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, between, ' ', tabwriter.AlignRight)
	for _, r := range rows {
		fmt.Fprintf(t, "%-*s\t", wide, r.Label)
		for _, v := range r.Values {
			fmt.Fprintf(t, "%s\t", v)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// document is storm.json.
type document struct {
	Funnel units.Funnel `json:"funnel"`
	// Runs are figures, or scenarioFigures.
	Runs   any               `json:"runs"`
	Fields map[string]string `json:"fields"`
}

// report is all that is left of the runs.
type report struct {
	funnel units.Funnel
	title  string // of the page
	about  string
	runs   any
	rows   []row
	strips []strip
}

// sideBySide reports the storm, the funnel and the asked.
func sideBySide(runs []recording, limit units.Funnel) report {
	var all []figures
	for _, r := range runs {
		all = append(all, r.measure())
	}
	return report{funnel: limit, title: "Storm, funnel, asked", runs: all, rows: table(all, limit), strips: onOneAxis(runs),
		about: "The same clients move from blue to green through two Envoys: first the blue processes simply stop, then the funnel lets the connections go, then it asks them to come over, at the same pace. " +
			"Letting a client in costs green time."}
}

// oneByOne reports scenarios.
func oneByOne(plays []play, limit units.Funnel) report {
	var all []scenarioFigures
	for _, p := range plays {
		all = append(all, p.measure())
	}
	return report{funnel: limit, title: "Disturbed rollouts", runs: all, rows: scenarioTable(all, limit), strips: strips(plays),
		about: fmt.Sprintf(`Clients move through two Envoys, %d every %s at most, and something happens.
took: seconds from the first disconnect to the last return; peak/%[2]s: most that the
funnel let go in any %[2]s; back/s: most returns in a second; mean, most: how often it
let a client go; lost: disconnected because an instance died; refused: attempts
to connect that did not succeed; away: not back at the end.`, limit.Close, limit.Every)}
}

// writeFiles writes storm.json, storm.png and storm.html into dir.
func (r report) writeFiles(dir string) error {
	doc, err := json.MarshalIndent(document{Funnel: r.funnel, Runs: r.runs, Fields: fields}, "", "  ")
	if err != nil {
		return err
	}
	var png, html bytes.Buffer
	if err := writePNG(&png, r.strips); err != nil {
		return fmt.Errorf("draw storm.png: %w", err)
	}
	if err := r.writePage(&html); err != nil {
		return fmt.Errorf("draw storm.html: %w", err)
	}
	for name, content := range map[string][]byte{"storm.json": append(doc, '\n'), "storm.png": png.Bytes(), "storm.html": html.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2933; background: #fff; max-width: 1250px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
table { border-collapse: collapse; margin: 1.5rem 0; }
th, td { padding: .3rem .9rem; border-bottom: 1px solid #e3e7ec; text-align: right; font-variant-numeric: tabular-nums; }
th:first-child { text-align: left; font-weight: normal; }
thead th { font-weight: 600; }
svg { width: 100%; height: auto; }
</style>
<h1>{{.Title}}</h1>
<p>{{.About}}</p>
<table>
{{range $i, $r := .Rows}}{{if eq $i 0}}<thead>{{end}}<tr><th scope="row">{{$r.Label}}</th>{{range $r.Values}}{{if eq $i 0}}<th scope="col">{{.}}</th>{{else}}<td>{{.}}</td>{{end}}{{end}}</tr>
{{if eq $i 0}}</thead>{{end}}{{end}}</table>
{{.Chart}}
</html>
`))

// writePage writes one page that needs nothing else.
func (r report) writePage(w io.Writer) error {
	var svg bytes.Buffer
	if err := writeSVG(&svg, r.strips); err != nil {
		return err
	}
	chart := svg.Bytes()
	if i := bytes.Index(chart, []byte("<svg")); i > 0 {
		chart = chart[i:] // HTML has no XML declaration
	}
	chart = bytes.ReplaceAll(chart, []byte("font-family:Liberation Sans"), []byte("font-family:'Liberation Sans',Arial,Helvetica,sans-serif"))
	return page.Execute(w, struct {
		Title, About string
		Rows         []row
		Chart        template.HTML
	}{r.title, r.about, r.rows, template.HTML(chart)})
}
