package report

import (
	"image/color"
	"math"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/format"
	"github.com/ismurov/pglocker/bench/internal/result"
	"github.com/ismurov/pglocker/bench/internal/workload"
)

// colours of the contenders, the same in all charts. The colour-blind can tell them apart.
var colours = map[string]color.Color{
	contender.NamePglocker:     color.RGBA{R: 0x00, G: 0x72, B: 0xb2, A: 0xff},
	contender.NamePglockerLock: color.RGBA{R: 0x56, G: 0xb4, B: 0xe9, A: 0xff},
	contender.NameFloor:        color.RGBA{R: 0x33, G: 0x33, B: 0x33, A: 0xff},
	contender.NameAdvisory:     color.RGBA{R: 0x00, G: 0x9e, B: 0x73, A: 0xff},
	contender.NameRedislock:    color.RGBA{R: 0xd5, G: 0x5e, B: 0x00, A: 0xff},
	contender.NameEtcd:         color.RGBA{R: 0xcc, G: 0x79, B: 0xa7, A: 0xff},
	contender.NameBare:         color.RGBA{R: 0xe6, G: 0x9f, B: 0x00, A: 0xff},
	contender.NamePgbench:      color.RGBA{R: 0xb0, G: 0xb0, B: 0xb0, A: 0xff},
}

const (
	chartWidth  = 18 * vg.Centimeter
	chartHeight = 9 * vg.Centimeter
)

// charts draws the measurements into a folder, and returns the names of the files.
func charts(dir string, log *result.Log, plan workload.Plan) (map[string]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}

	drawn := make(map[string]string)
	draw := func(name string, p *plot.Plot, err error) error {
		if err != nil || p == nil {
			return err
		}

		drawn[name] = name + ".svg"

		return p.Save(chartWidth, chartHeight, filepath.Join(dir, drawn[name]))
	}

	rate, err := lines(log, plan, "Pairs per second (W2)", "pairs/s", "pairs/s", 1)
	if err := draw("w2-pairs", rate, err); err != nil {
		return nil, err
	}

	p99, err := lines(log, plan, "p99 of a pair (W2)", "milliseconds", "p99-ns", 1e-6)
	if err := draw("w2-p99", p99, err); err != nil {
		return nil, err
	}

	turns, err := bars(log, "W3", "Hand-overs per second (W3)", "hand-overs/s", "handovers/s")
	if err := draw("w3-handovers", turns, err); err != nil {
		return nil, err
	}

	return drawn, nil
}

// lines draws a metric of W2 by concurrency, both logarithmic. It returns nil if there is
// nothing to draw.
func lines(log *result.Log, plan workload.Plan, title, label, unit string, scale float64) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = title
	p.X.Label.Text = "goroutines"
	p.Y.Label.Text = label
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.Y.Tick.Marker = plot.TickerFunc(ticks125)
	p.Legend.Top = true

	var ticks plot.ConstantTicks
	for _, n := range plan.Goroutines {
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: values(workload.Goroutines(n))})
	}

	p.X.Tick.Marker = ticks
	p.Add(plotter.NewGrid())

	shown := false

	for _, name := range log.Contenders("W2") {
		var points plotter.XYs

		for _, n := range plan.Goroutines {
			key := result.Key{Workload: "W2", Params: workload.Goroutines(n), Contender: name}
			if y := log.Median(key, unit) * scale; y > 0 {
				points = append(points, plotter.XY{X: float64(n), Y: y})
			}
		}

		if len(points) < 2 {
			continue
		}

		line, scatter, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}

		line.Color, scatter.Color = colours[name], colours[name]
		line.Width = vg.Points(1.5)

		p.Add(line, scatter)
		p.Legend.Add(name, line, scatter)

		shown = true
	}

	if !shown {
		return nil, nil
	}

	p.X.Max *= 3 // room for the legend beside the lines

	return p, nil
}

// ticks125 labels 1, 2 and 5 of each decade.
func ticks125(least, most float64) []plot.Tick {
	var ticks []plot.Tick

	for decade := math.Floor(math.Log10(least)); decade <= math.Log10(most); decade++ {
		for _, digit := range []float64{1, 2, 5} {
			if value := digit * math.Pow(10, decade); value >= least && value <= most {
				ticks = append(ticks, plot.Tick{Value: value, Label: format.Figures(value)})
			}
		}
	}

	return ticks
}

// bars draws a metric of all contenders, in groups by the parameters. It returns nil if
// there is nothing to draw.
func bars(log *result.Log, name, title, label, unit string) (*plot.Plot, error) {
	params, contenders := log.Params(name), log.Contenders(name)
	if len(params) == 0 {
		return nil, nil
	}

	p := plot.New()
	p.Title.Text = title
	p.Y.Label.Text = label
	p.Y.Min = 0
	p.Legend.Top = true

	width := 12 * vg.Centimeter / vg.Length(len(params)*(len(contenders)+1))

	for i, who := range contenders {
		var heights plotter.Values

		for _, one := range params {
			height := log.Median(result.Key{Workload: name, Params: one, Contender: who}, unit)
			if math.IsNaN(height) {
				height = 0
			}

			heights = append(heights, height)
		}

		chart, err := plotter.NewBarChart(heights, width)
		if err != nil {
			return nil, err
		}

		chart.Color = colours[who]
		chart.LineStyle.Width = 0
		chart.Offset = (vg.Length(i) - vg.Length(len(contenders)-1)/2) * width

		p.Add(chart)
		p.Legend.Add(who, chart)
	}

	var labels []string
	for _, one := range params {
		labels = append(labels, values(one)+" waiters")
	}

	p.NominalX(labels...)
	p.X.Max += 0.5 // room for the legend

	return p, nil
}
