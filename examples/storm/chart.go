package main

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/sluice-proxy/sluice/examples/swarm/clients"
)

const (
	chartWidth = 13 * vg.Inch
	rowHeight  = 3.8 * vg.Inch
	lead       = 3.0 // seconds shown before the first client is let go
	trail      = 4.0 // and after the last return
	// above is how much higher than the lines a panel of connections is, for each word that
	// stands there.
	above = 0.09
)

var (
	ink    = color.RGBA{0x1f, 0x29, 0x33, 0xff}
	faint  = color.RGBA{0xe3, 0xe7, 0xec, 0xff}
	blue   = color.RGBA{0x25, 0x63, 0xeb, 0xff}
	green  = color.RGBA{0x16, 0xa3, 0x4a, 0xff}
	violet = color.RGBA{0x7c, 0x3a, 0xed, 0xff}
	grey   = color.RGBA{0x6b, 0x72, 0x80, 0xff}
	orange = color.RGBA{0xea, 0x58, 0x0c, 0xff}
)

// said names a run in the picture.
var said = map[string]string{
	storm:  "Storm: the blue processes simply stop",
	funnel: "Funnel: rolloutctl promote green",
	asked:  "Asked first: promote green, with a notice",
}

// strip is one row of a picture: the connections over time beside the reconnects,
// from lead before the first client is let go to to, up to tallest reconnects a second.
type strip struct {
	recording
	title, pace string
	lines       []series
	marks       []mark
	to, tallest float64
}

// series is a line of connections.
type series struct {
	name  string
	paint color.Color
	of    func(clients.Hello) bool
}

// mark is something that happened, in seconds since the picture's zero.
type mark struct {
	at   float64
	what string
}

// byColour are the usual lines.
var byColour = []series{
	{"blue", blue, func(h clients.Hello) bool { return h.Colour == "blue" }},
	{"green", green, func(h clients.Hello) bool { return h.Colour == "green" }},
}

// byRelease are those where blue is used twice.
var byRelease = []series{
	{"v1, blue", blue, func(h clients.Hello) bool { return h.Version == "v1" }},
	{"v2, green", green, func(h clients.Hello) bool { return h.Version == "v2" }},
	{"v3, blue", violet, func(h clients.Hello) bool { return h.Version == "v3" }},
}

// onOneAxis is one run above the other, on the same axes.
func onOneAxis(runs []recording) (all []strip) {
	var longest, tallest float64
	for _, r := range runs {
		longest = max(longest, r.measure().SecondsToMove)
	}
	to := math.Ceil(longest + trail)
	for _, r := range runs {
		tallest = max(tallest, r.tallest(to))
	}
	for _, r := range runs {
		pace := ""
		if r.name != storm {
			pace = fmt.Sprintf("%d every %s, ", r.funnel.Close, r.funnel.Every)
		}
		all = append(all, strip{recording: r, title: said[r.name], pace: pace, lines: byColour, to: to, tallest: tallest})
	}
	return all
}

// strips are scenarios, each on its own axes.
func strips(plays []play) (all []strip) {
	for _, p := range plays {
		s := strip{recording: p.recording, title: p.scenario.said, lines: byColour, marks: p.marks()}
		if p.ends == "v3" {
			s.lines = byRelease
		}
		s.to = math.Ceil(p.measure().SecondsToMove + trail)
		s.tallest = p.tallest(s.to)
		all = append(all, s)
	}
	return all
}

// tallest is the most reconnects in one bar.
func (r recording) tallest(to float64) (most float64) {
	for _, bar := range r.reconnects(-lead, to) {
		most = max(most, bar.y)
	}
	return most
}

func drawChart(dc draw.Canvas, all []strip) {
	var rows [][]*plot.Plot
	for _, s := range all {
		f := s.measure()
		// Where the chart's font is missing the words are wider: a line has room for 46 letters.
		held := panel(fmt.Sprintf("%s\n%smoved in %.1f s", s.title, s.pace, f.SecondsToMove), "connections", s.to, float64(s.clients), 1+above*s.words())
		drawMarks(held, s.marks, float64(s.clients))
		drawConnections(held, s)
		back := panel(fmt.Sprintf("Clients coming back: up to %d in one second\nthe longest without a connection: %d ms", f.PeakReconnects, f.AwayMax), "reconnects per second", s.to, s.tallest, 1.08)
		drawMarks(back, s.marks, 0)
		drawReconnects(back, s)
		rows = append(rows, []*plot.Plot{held, back})
	}
	tiles := draw.Tiles{Rows: len(rows), Cols: 2, PadX: vg.Points(28), PadY: vg.Points(26),
		PadTop: vg.Points(14), PadBottom: vg.Points(12), PadLeft: vg.Points(14), PadRight: vg.Points(20)}
	for j, row := range plot.Align(rows, tiles, dc) {
		for i, cell := range row {
			rows[j][i].Draw(cell)
		}
	}
}

// words is how many lines of text stand above the connections.
func (s strip) words() float64 { return float64(max(len(s.lines), min(len(s.marks), markRows))) + 0.5 }

// panel is an empty plot with its axes, so many times as high as what it shows.
func panel(title, y string, to, top, headroom float64) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.TextStyle.Font = font.Font{Typeface: "Liberation", Variant: "Sans", Weight: 3, Size: 12}
	p.Title.TextStyle.Color, p.Title.Padding = ink, vg.Points(8)
	p.X.Label.Text, p.Y.Label.Text = "seconds since the first was let go", y
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = -lead, to, 0, max(1, top*headroom)
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Label.TextStyle.Font = font.Font{Typeface: "Liberation", Variant: "Sans", Size: 11}
		axis.Tick.Label.Font = font.Font{Typeface: "Liberation", Variant: "Sans", Size: 10}
		axis.Label.TextStyle.Color, axis.Tick.Label.Color, axis.Color, axis.Tick.Color = ink, ink, ink, ink
		axis.Padding = 0
	}
	p.X.Tick.Marker = plot.TickerFunc(roundTicks)
	p.Y.Tick.Marker = plot.TickerFunc(func(low, _ float64) []plot.Tick { return roundTicks(low, max(1, top)) })
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = nil, faint // no line through the words
	p.Add(grid)
	return p
}

// roundTicks labels about six round numbers (1, 2 or 5 times a power of ten).
func roundTicks(low, high float64) (ticks []plot.Tick) {
	step := math.Pow(10, math.Floor(math.Log10((high-low)/6)))
	for _, by := range []float64{2, 2.5, 2} {
		if (high-low)/step > 8 {
			step *= by
		}
	}
	step = max(step, 1)
	for i := math.Ceil(low / step); i*step <= high; i++ {
		v := i*step + 0 // no minus zero
		ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprintf("%.0f", v)})
	}
	return ticks
}

func drawConnections(p *plot.Plot, s strip) {
	for _, side := range s.lines {
		line := &plotter.Line{XYs: xys(s.connections(side.of, -lead, s.to, 50*time.Millisecond))}
		line.LineStyle = draw.LineStyle{Color: side.paint, Width: vg.Points(2.4)}
		p.Add(line)
		p.Legend.Add(side.name, line)
	}
	p.Legend.TextStyle.Font = font.Font{Typeface: "Liberation", Variant: "Sans", Size: 11}
	p.Legend.Top, p.Legend.Left, p.Legend.XOffs = true, true, vg.Points(6)
	p.Legend.ThumbnailWidth, p.Legend.Padding = vg.Points(22), vg.Points(2)
}

// markRows is how many rows the words of marks take turns in.
const markRows = 3

// drawMarks draws a dashed line for each mark, and says above the height top what
// happened; 0 says nothing.
func drawMarks(p *plot.Plot, marks []mark, top float64) {
	var said plotter.XYLabels
	rows := min(len(marks), markRows)
	for i, m := range marks {
		row := float64(rows - 1 - i%rows) // a line ends below the words before it
		end := p.Y.Max
		if top > 0 {
			end = top * (1 + above*(row+1))
		}
		line := &plotter.Line{XYs: plotter.XYs{{X: m.at, Y: 0}, {X: m.at, Y: end}}}
		line.LineStyle = draw.LineStyle{Color: grey, Width: vg.Points(1), Dashes: []vg.Length{vg.Points(4), vg.Points(3)}}
		p.Add(line)
		said.XYs = append(said.XYs, plotter.XY{X: m.at, Y: top * (1 + above*(row+0.3))})
		said.Labels = append(said.Labels, " "+m.what)
	}
	if top == 0 || len(marks) == 0 {
		return
	}
	labels, err := plotter.NewLabels(said)
	if err != nil {
		return // as many labels as points
	}
	for i := range labels.TextStyle {
		labels.TextStyle[i].Font = font.Font{Typeface: "Liberation", Variant: "Sans", Size: 10}
		labels.TextStyle[i].Color = grey
	}
	p.Add(labels)
}

// drawReconnects draws a bar for each second, exactly one second wide.
func drawReconnects(p *plot.Plot, s strip) {
	for _, bar := range s.reconnects(-lead, s.to) {
		if bar.y == 0 {
			continue
		}
		box, err := plotter.NewPolygon(plotter.XYs{{X: bar.x + 0.06}, {X: bar.x + 0.06, Y: bar.y}, {X: bar.x + 0.94, Y: bar.y}, {X: bar.x + 0.94}})
		if err != nil {
			continue // four finite points are a polygon
		}
		box.Color, box.LineStyle.Width = orange, 0
		p.Add(box)
	}
}

func xys(points []point) plotter.XYs {
	out := make(plotter.XYs, len(points))
	for i, p := range points {
		out[i].X, out[i].Y = p.x, p.y
	}
	return out
}

// writePNG and writeSVG write the same picture.
func writePNG(w io.Writer, all []strip) error {
	c := vgimg.NewWith(vgimg.UseWH(chartWidth, height(all)), vgimg.UseDPI(110), vgimg.UseBackgroundColor(color.White))
	drawChart(draw.New(c), all)
	_, err := vgimg.PngCanvas{Canvas: c}.WriteTo(w)
	return err
}

func writeSVG(w io.Writer, all []strip) error {
	c := vgsvg.New(chartWidth, height(all))
	drawChart(draw.New(c), all)
	_, err := c.WriteTo(w)
	return err
}

func height(all []strip) vg.Length { return rowHeight * vg.Length(len(all)) }
