//go:build linux

package main

import (
	"context"
	"fmt"
	"html"
	"io"
	"math"
	"strings"
)

// benchScaleCalls are the numbers of calls of the scale picture.
var benchScaleCalls = []int{20, 100, 200, 500, 1000}

// benchPoint is one run of the scale picture. Failed says why it counts as the
// limit, empty if it does not.
type benchPoint struct {
	Calls        int
	CPUPerPacket float64 // µs
	CPU          float64 // cores
	Delay        benchQuantiles
	RSSPerCall   int64
	Lost         uint64
	Right        int // recordings
	Floor        float64
	Failed       string
}

// benchScale runs the bench with ever more calls until one run fails.
func benchScale(ctx context.Context, f benchFlags, stderr io.Writer) (points []benchPoint, last benchResult, err error) {
	for _, calls := range benchScaleCalls {
		f.Calls = calls
		r, err := bench(ctx, f, stderr)
		if err != nil {
			if len(points) == 0 || ctx.Err() != nil {
				return points, last, err
			}
			points = append(points, benchPoint{Calls: calls, Failed: strings.SplitN(err.Error(), "\n", 2)[0]})
			return points, last, nil
		}
		last = r
		p := benchPoint{Calls: calls, CPUPerPacket: r.CPUPerPacket, CPU: r.CPU, Delay: r.Delay, RSSPerCall: r.RSSPerCall, Lost: r.Packets.Lost, Right: r.Recordings.OK}
		for _, v := range r.Rivals {
			if v.Recorded < 0 {
				p.Floor = v.CPUPerPacket
			}
		}
		if len(r.Failures) > 0 {
			p.Failed = r.Failures[0]
		}
		if points = append(points, p); p.Failed != "" {
			break
		}
	}
	return points, last, nil
}

// benchLimit names what stopped the row.
func benchLimit(points []benchPoint) string {
	last := points[len(points)-1]
	if last.Failed == "" {
		return fmt.Sprintf("No limit was hit up to %d calls, which took %.2f of the one core.", last.Calls, last.CPU)
	}
	return fmt.Sprintf("The limit was hit at %d calls: %s.", last.Calls, last.Failed)
}

// benchScaleTable is the row of runs as a table of a page.
func benchScaleTable(points []benchPoint) string {
	var b strings.Builder
	fmt.Fprintln(&b, "| calls | CPU per packet | cores | of it per call | bare C relay | added delay p50 / p99 / p99.9 | memory per call | lost | recordings right |")
	fmt.Fprintln(&b, "|---|---|---|---|---|---|---|---|---|")
	for _, p := range points {
		if p.CPUPerPacket == 0 {
			fmt.Fprintf(&b, "| %d | %s | | | | | | | |\n", p.Calls, p.Failed)
			continue
		}
		floor := "–"
		if p.Floor > 0 {
			floor = fmt.Sprintf("%.1f µs", p.Floor)
		}
		fmt.Fprintf(&b, "| %d | %.1f µs | %.2f | %.2f ‰ | %s | %s / %s / %s | %d KB | %d | %d |\n", p.Calls, p.CPUPerPacket, p.CPU, 1000*p.CPU/float64(p.Calls), floor,
			benchMicros(p.Delay.P50), benchMicros(p.Delay.P99), benchMicros(p.Delay.P999), p.RSSPerCall/1024, p.Lost, p.Right)
	}
	return b.String() + "\n" + benchLimit(points) + "\n"
}

// benchScaleSVG draws the processor time per packet over the number of calls,
// beside that of the bare relay where there is one. Colours follow the reader's
// light or dark page.
func benchScaleSVG(points []benchPoint) string {
	const width, height, left, right, top, bottom = 720, 400, 70, 30, 40, 60
	var drawn []benchPoint
	most := 1.0
	for _, p := range points {
		if p.CPUPerPacket > 0 {
			drawn = append(drawn, p)
			most = max(most, p.CPUPerPacket, p.Floor)
		}
	}
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for _, s := range []float64{0.2, 0.5, 1} {
		if most/(step*s) <= 6 {
			step *= s
			break
		}
	}
	most = math.Ceil(most/step) * step
	first, last := math.Log(float64(benchScaleCalls[0])), math.Log(float64(benchScaleCalls[len(benchScaleCalls)-1]))
	x := func(calls int) float64 {
		return left + (math.Log(float64(calls))-first)/(last-first)*(width-left-right)
	}
	y := func(us float64) float64 { return height - bottom - us/most*(height-top-bottom) }

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-labelledby="t d" font-family="sans-serif" font-size="14">`+"\n", width, height)
	fmt.Fprintln(&b, `<title id="t">Processor time per packet by number of calls</title>`)
	var told []string
	for _, p := range drawn {
		told = append(told, fmt.Sprintf("%d calls: %.1f µs", p.Calls, p.CPUPerPacket))
	}
	fmt.Fprintf(&b, "<desc id=\"d\">%s. %s</desc>\n", strings.Join(told, "; "), html.EscapeString(benchLimit(points)))
	fmt.Fprintln(&b, `<style>
:root { color-scheme: light dark; --ink: #1b1b1b; --faint: #c4c4c4; --page: #ffffff; --ours: #0b5fad; --floor: #9a4a00 }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --faint: #4a4a4a; --page: #14171a; --ours: #7cc0ff; --floor: #ffb066 } }
text { fill: var(--ink) } .page { fill: var(--page) } .grid { stroke: var(--faint) } path { fill: none; stroke-width: 2.5 }
.ours { stroke: var(--ours) } .floor { stroke: var(--floor); stroke-dasharray: 6 4 }
circle.ours { fill: var(--ours) } circle.floor { fill: var(--floor) } text.ours { fill: var(--ours); stroke: none } text.floor { fill: var(--floor); stroke: none }
</style>`)
	fmt.Fprintf(&b, `<rect class="page" width="%d" height="%d"/>`+"\n", width, height)
	for us := 0.0; us <= most+step/2; us += step {
		fmt.Fprintf(&b, `<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n",
			left, y(us), width-right, y(us), left-8, y(us)+5, math.Round(us*100)/100)
	}
	for _, calls := range benchScaleCalls {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n", x(calls), height-bottom+22, calls)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">recorded calls at the same time</text>`+"\n", (left+width-right)/2, height-14)
	fmt.Fprintf(&b, `<text x="%d" y="22">µs of processor time per relayed packet</text>`+"\n", left)
	line := func(class, name string, of func(benchPoint) float64, above float64) {
		var path []string
		var end benchPoint
		for _, p := range drawn {
			if of(p) == 0 {
				continue
			}
			verb := "L"
			if len(path) == 0 {
				verb = "M"
			}
			path = append(path, fmt.Sprintf("%s%.1f %.1f", verb, x(p.Calls), y(of(p))))
			fmt.Fprintf(&b, `<circle class="%s" cx="%.1f" cy="%.1f" r="4"/>`+"\n", class, x(p.Calls), y(of(p)))
			end = p
		}
		if len(path) == 0 {
			return
		}
		fmt.Fprintf(&b, `<path class="%s" d="%s"/>`+"\n", class, strings.Join(path, " "))
		fmt.Fprintf(&b, `<text class="%s" x="%.1f" y="%.1f" text-anchor="end">%s</text>`+"\n", class, x(end.Calls), y(of(end))+above, name)
	}
	line("ours", "centralka, recording", func(p benchPoint) float64 { return p.CPUPerPacket }, 22)
	line("floor", "bare C relay", func(p benchPoint) float64 { return p.Floor }, -12)
	if p := points[len(points)-1]; p.Failed != "" {
		fmt.Fprintf(&b, `<line class="floor" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/><text x="%.1f" y="%d" text-anchor="end">limit: %s</text>`+"\n",
			x(p.Calls), top, x(p.Calls), height-bottom, x(p.Calls)-6, top+14, html.EscapeString(p.Failed))
	}
	fmt.Fprintln(&b, "</svg>")
	return b.String()
}
