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
)

const (
	chartWidth  = 13 * vg.Inch
	chartHeight = 7.6 * vg.Inch
	lead        = 3.0 // seconds shown before the first disconnect
	trail       = 4.0 // and after the last return
)

var (
	ink    = color.RGBA{0x1f, 0x29, 0x33, 0xff}
	faint  = color.RGBA{0xe3, 0xe7, 0xec, 0xff}
	blue   = color.RGBA{0x25, 0x63, 0xeb, 0xff}
	green  = color.RGBA{0x16, 0xa3, 0x4a, 0xff}
	orange = color.RGBA{0xea, 0x58, 0x0c, 0xff}
)

// said names a run in the picture.
var said = map[string]string{
	storm:  "Storm: the blue processes simply stop",
	funnel: "Funnel: rolloutctl promote green",
}

// drawChart draws one row per run, connections beside reconnects, on the same axes.
func drawChart(dc draw.Canvas, runs []recording) {
	var longest, tallest float64
	for _, r := range runs {
		longest = max(longest, r.measure().SecondsToMove)
	}
	to := math.Ceil(longest + trail)
	for _, r := range runs {
		for _, bar := range r.reconnects(-lead, to) {
			tallest = max(tallest, bar.y)
		}
	}
	var rows [][]*plot.Plot
	for _, r := range runs {
		f := r.measure()
		title := said[r.name]
		if r.name == funnel {
			title += fmt.Sprintf(" (%d every %s)", r.funnel.Close, r.funnel.Every)
		}
		held := panel(fmt.Sprintf("%s — moved in %.1f s", title, f.SecondsToMove), "connections", to, float64(r.clients))
		drawConnections(held, r, to)
		back := panel(fmt.Sprintf("Clients coming back — peak %d in one second", f.PeakReconnects), "reconnects per second", to, tallest)
		drawReconnects(back, r, to)
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

// panel is an empty plot with its axes.
func panel(title, y string, to, top float64) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.TextStyle.Font = font.Font{Typeface: "Liberation", Variant: "Sans", Weight: 3, Size: 13}
	p.Title.TextStyle.Color, p.Title.Padding = ink, vg.Points(8)
	p.X.Label.Text, p.Y.Label.Text = "seconds since the first disconnect", y
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = -lead, to, 0, max(1, top*1.08)
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Label.TextStyle.Font = font.Font{Typeface: "Liberation", Variant: "Sans", Size: 11}
		axis.Tick.Label.Font = font.Font{Typeface: "Liberation", Variant: "Sans", Size: 10}
		axis.Label.TextStyle.Color, axis.Tick.Label.Color, axis.Color, axis.Tick.Color = ink, ink, ink, ink
		axis.Padding = 0
	}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.TickerFunc(roundTicks), plot.TickerFunc(roundTicks)
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = faint, faint
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

func drawConnections(p *plot.Plot, r recording, to float64) {
	for _, side := range []struct {
		name  string
		paint color.Color
	}{{"blue", blue}, {"green", green}} {
		line := &plotter.Line{XYs: xys(r.connections(side.name, -lead, to, 50*time.Millisecond))}
		line.LineStyle = draw.LineStyle{Color: side.paint, Width: vg.Points(2.4)}
		p.Add(line)
		p.Legend.Add(side.name, line)
	}
	p.Legend.TextStyle.Font = font.Font{Typeface: "Liberation", Variant: "Sans", Size: 11}
	p.Legend.Top, p.Legend.XOffs, p.Legend.YOffs = true, vg.Points(-8), vg.Points(-78)
	p.Legend.ThumbnailWidth, p.Legend.Padding = vg.Points(22), vg.Points(3)
}

// drawReconnects draws a bar for each second, exactly one second wide.
func drawReconnects(p *plot.Plot, r recording, to float64) {
	for _, bar := range r.reconnects(-lead, to) {
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
func writePNG(w io.Writer, runs []recording) error {
	c := vgimg.NewWith(vgimg.UseWH(chartWidth, chartHeight), vgimg.UseDPI(110), vgimg.UseBackgroundColor(color.White))
	drawChart(draw.New(c), runs)
	_, err := vgimg.PngCanvas{Canvas: c}.WriteTo(w)
	return err
}

func writeSVG(w io.Writer, runs []recording) error {
	c := vgsvg.New(chartWidth, chartHeight)
	drawChart(draw.New(c), runs)
	_, err := c.WriteTo(w)
	return err
}
