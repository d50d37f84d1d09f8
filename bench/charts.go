package main

import (
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// chartFiles name the charts. Memory has none, because a candidate without a daemon has no ratio.
var chartFiles = map[group]string{reads: "reading.svg", deep: "layers.svg", changes: "changing.svg", bulk: "bulk.svg"}

// overviewFile is the chart of README.md. It has the workloads and candidates below, and is drawn
// if the report has all of these workloads.
const overviewFile = "overview.svg"

var (
	overviewWorkloads = []string{"cold find", "warm grep", "untar", "rm lower", "copy-up", "append", "git",
		"podman run, 20 times"}
	overviewCandidates = []string{"cached", "fuse-overlayfs"}
)

// charts draws the ratios to the base, one file a group, and the overview.
func (r *report) charts(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, g := range groups {
		bars := r.bars(
			func(c string) bool { return c != base },
			func(row *result) bool { return row.Group == g })
		if file := chartFiles[g]; file != "" && len(bars.names) > 0 {
			if err := r.chart(filepath.Join(dir, file), string(g), bars); err != nil {
				return err
			}
		}
	}
	bars := r.bars(
		func(c string) bool { return slices.Contains(overviewCandidates, c) },
		func(row *result) bool { return slices.Contains(overviewWorkloads, row.Name) })
	if len(bars.names) < len(overviewWorkloads) {
		return nil
	}
	return r.chart(filepath.Join(dir, overviewFile), "Overview", bars)
}

// chart writes one chart.
func (r *report) chart(path, title string, bars *ratioBars) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = r.draw(f, title, bars)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// bars collects the ratios of a chart: those of the workloads and candidates that the two functions
// accept. The first workload is the topmost, so it comes last.
func (r *report) bars(candidate func(string) bool, workload func(*result) bool) *ratioBars {
	b := &ratioBars{}
	for i, c := range r.Candidates {
		if candidate(c.Name) {
			b.candidates = append(b.candidates, c.Name)
			b.colors = append(b.colors, colorOf(c.Name, i))
		}
	}
	for i := len(r.Results) - 1; i >= 0; i-- {
		result := &r.Results[i]
		if !workload(result) {
			continue
		}
		var row []*spread
		some := false
		for _, name := range b.candidates {
			var s *spread
			if f := result.figures(name); f != nil {
				s = f.Ratio
			}
			some = some || s != nil
			row = append(row, s)
		}
		if some {
			b.names = append(b.names, result.Name)
			b.rows = append(b.rows, row)
		}
	}
	return b
}

// Colours that are distinct for colour-blind readers (Okabe and Ito).
var (
	colors = map[string]color.Color{
		native: rgb(0x99, 0x99, 0x99), "cached": rgb(0x00, 0x72, 0xb2), "passthrough": rgb(0x56, 0xb4, 0xe9),
		"fuse-overlayfs": rgb(0xe6, 0x9f, 0x00),
	}
	moreColors = []color.Color{rgb(0xd5, 0x5e, 0x00), rgb(0x00, 0x9e, 0x73), rgb(0xcc, 0x79, 0xa7), rgb(0xf0, 0xe4, 0x42)}
)

func rgb(r, g, b uint8) color.Color { return color.RGBA{r, g, b, 0xff} }

func colorOf(name string, i int) color.Color {
	if c, ok := colors[name]; ok {
		return c
	}
	return moreColors[i%len(moreColors)]
}

// margin keeps text off the edge.
const margin = 4 * vg.Millimeter

func (r *report) draw(f *os.File, title string, bars *ratioBars) error {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	quick := ""
	if r.Quick {
		quick = ", quick"
	}
	p.Title.Text = fmt.Sprintf("%s: time in relation to the kernel's overlayfs\n%s, Linux %s, %d CPUs, %s, as %s; medians of %d rounds%s",
		title, r.Date, r.Machine.Kernel, r.Machine.CPUs, r.Machine.FileSystem, r.Machine.User, r.Rounds, quick)
	p.Title.TextStyle.Font.Size = 11
	p.Title.Padding = 6
	p.X.Label.Text = "left is quicker, right is slower; the number is the median, the line is from the least to the most of the rounds"
	p.X.Label.TextStyle.Font.Size = 9
	p.X.Tick.Marker = ratioTicks{}
	p.NominalY(bars.names...)
	p.Legend.Top = true
	p.Add(bars)
	for i := range bars.candidates {
		p.Legend.Add(bars.candidates[i], thumbnail{bars.colors[i]})
	}
	// The legend has a strip of its own, above the first workload.
	p.Y.Max = float64(len(bars.names)) - 0.5 + 0.25*float64(len(bars.candidates))
	height := vg.Length(len(bars.names))*(0.06+0.13*vg.Length(len(bars.candidates)))*vg.Inch + 2*vg.Inch
	canvas := vgsvg.New(9*vg.Inch, height)
	p.Draw(draw.Crop(draw.New(canvas), margin, -3*margin, margin, -margin))
	_, err := canvas.WriteTo(f)
	return err
}

// ratioBars draws, for each workload, a bar for each candidate from 1 to its ratio, on a
// logarithmic axis.
type ratioBars struct {
	names, candidates []string
	colors            []color.Color
	// rows are by workload and candidate. nil: not measured.
	rows [][]*spread
}

// Ratios beyond these are cut off, because a bar of a thousand would make the others unreadable.
const leastRatio, mostRatio = 0.01, 50

// axis returns the place of a ratio.
func axis(ratio float64) float64 { return math.Log10(min(max(ratio, leastRatio), mostRatio)) }

// Plot draws the bars; it is called by gonum.org/v1/plot.
func (b *ratioBars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	line := draw.LineStyle{Color: color.Black, Width: vg.Points(0.6)}
	grid := draw.LineStyle{Color: color.Gray{0xdd}, Width: vg.Points(0.5)}
	top, bottom := y(p.Y.Max), y(p.Y.Min)
	for _, tick := range p.X.Tick.Marker.Ticks(p.X.Min, p.X.Max) {
		c.StrokeLine2(grid, x(tick.Value), bottom, x(tick.Value), top)
	}
	number := p.X.Tick.Label
	number.Font.Size, number.XAlign, number.YAlign = 7, text.XLeft, text.YCenter
	height := 0.8 / float64(len(b.candidates))
	for i, row := range b.rows {
		for j, s := range row {
			if s == nil {
				continue
			}
			// The first candidate is the topmost of its workload.
			above := float64(i) + 0.4 - float64(j)*height
			low, high := y(above-0.9*height), y(above)
			from, to := x(0), x(axis(s.Median))
			c.FillPolygon(b.colors[j], []vg.Point{{X: from, Y: low}, {X: to, Y: low}, {X: to, Y: high}, {X: from, Y: high}})
			middle := (low + high) / 2
			c.StrokeLine2(line, x(axis(s.Min)), middle, x(axis(s.Max)), middle)
			// The number stands beyond the bar and its line.
			at, style := vg.Point{X: max(to, x(axis(s.Max))) + 2, Y: middle}, number
			if s.Median < 1 {
				at.X, style.XAlign = min(to, x(axis(s.Min)))-2, text.XRight
			}
			c.FillText(style, at, decimals(s.Median))
		}
	}
	c.StrokeLine2(draw.LineStyle{Color: color.Black, Width: vg.Points(1)}, x(0), bottom, x(0), top)
}

// DataRange has from a half to two in it at least.
func (b *ratioBars) DataRange() (xmin, xmax, ymin, ymax float64) {
	xmin, xmax = axis(0.5), axis(2)
	for _, row := range b.rows {
		for _, s := range row {
			if s != nil {
				xmin, xmax = min(xmin, axis(s.Min)), max(xmax, axis(s.Max))
			}
		}
	}
	// With room for the numbers.
	return xmin - 0.15, xmax + 0.15, -0.5, float64(len(b.rows)) - 0.5
}

// thumbnail is a candidate's colour in the legend.
type thumbnail struct{ color color.Color }

// Thumbnail fills what the legend leaves for it.
func (t thumbnail) Thumbnail(c *draw.Canvas) {
	c.FillPolygon(t.color, []vg.Point{{X: c.Min.X, Y: c.Min.Y}, {X: c.Max.X, Y: c.Min.Y},
		{X: c.Max.X, Y: c.Max.Y}, {X: c.Min.X, Y: c.Max.Y}})
}

// ratioTicks marks 1, 2 and 5 of each power of ten.
type ratioTicks struct{}

// Ticks are those between two logarithms.
func (ratioTicks) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for power := math.Floor(low); power <= high; power++ {
		for _, digit := range []float64{1, 2, 5} {
			value := digit * math.Pow(10, power)
			if at := math.Log10(value); at >= low && at <= high {
				label := strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.4f", value), "0"), ".")
				ticks = append(ticks, plot.Tick{Value: at, Label: label + "x"})
			}
		}
	}
	return ticks
}
