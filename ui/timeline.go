package ui

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ismurov/pglocker"
)

const (
	// axisSteps is into how many steps a timeline is divided. It moves on by whole steps, so it is drawn anew
	// only after a step or an event.
	axisSteps = 240
	// lanesShown is how many holders have a lane of their own.
	lanesShown = 8
	// leastBar is how wide a bar is at least, and gapless how near two such bars may be before they become one.
	leastBar = 0.35
	gapless  = 0.1
)

// axis is the time that a timeline shows.
type axis struct {
	Since, Until time.Time
}

func newAxis(now time.Time, span time.Duration) axis {
	step := max(span/axisSteps, time.Millisecond)
	until := now.Truncate(step).Add(step)

	return axis{until.Add(-span), until}
}

// at is where a time is, in percent.
func (a axis) at(t time.Time) float64 {
	return 100 * min(max(float64(t.Sub(a.Since))/float64(a.Until.Sub(a.Since)), 0), 1)
}

// lane is a row of a timeline.
type lane struct {
	Label, ID string
	URL       string
	Bars      []bar
	tenures   []tenure
}

// bar is a tenure, or several that are too short to be drawn apart. Places are in percent.
type bar struct {
	Class, Title string
	x, w         float64
	n            int
	first, last  tenure
}

func (b bar) X() string { return percent(b.x) }
func (b bar) W() string { return percent(b.w) }

func percent(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) + "%" }

// tick is a mark on the axis.
type tick struct {
	X, Label string
	Anchor   string
}

// timeline is drawn as SVG.
type timeline struct {
	axis
	Lanes   []lane
	Ticks   []tick
	Summary string
	Note    string
}

// byOwner makes a lane for each Locker, in the order of the last tenures.
func byOwner(tenures []tenure) (lanes []lane) {
	places := map[string]int{}

	for _, t := range tenures {
		name, id := ownerName(t.Owner)
		id, _, _ = strings.Cut(id, ".") // the number of the grant

		n, ok := places[name+id]
		if !ok {
			n = len(lanes)
			places[name+id] = n
			lanes = append(lanes, lane{Label: cmp.Or(name, "holder"), ID: id})
		}

		lanes[n].tenures = append(lanes[n].tenures, t)
	}

	last := func(l lane) time.Time { return l.tenures[len(l.tenures)-1].Until }
	slices.SortStableFunc(lanes, func(a, b lane) int { return last(b).Compare(last(a)) })

	if len(lanes) > lanesShown {
		rest := lane{Label: strconv.Itoa(len(lanes)-lanesShown+1) + " others"}
		for _, l := range lanes[lanesShown-1:] {
			rest.tenures = append(rest.tenures, l.tenures...)
		}

		slices.SortFunc(rest.tenures, func(a, b tenure) int { return a.Since.Compare(b.Since) })
		lanes = append(lanes[:lanesShown-1:lanesShown-1], rest)
	}

	return lanes
}

// draw makes a timeline of lanes.
func (r *reader) draw(axis axis, lanes []lane) *timeline {
	line := &timeline{axis: axis, Lanes: lanes, Ticks: axis.ticks()}

	var total, crashed, forced int

	for i := range lanes {
		lanes[i].Bars = axis.bars(lanes[i].tenures)

		for _, t := range lanes[i].tenures {
			total++

			switch t.End {
			case pglocker.EventExpired:
				crashed++
			case pglocker.EventForced:
				forced++
			}
		}
	}

	line.Summary = fmt.Sprintf("Timeline from %s to %s UTC: %d tenures, %d ended without a release, %d by force.",
		axis.Since.Format(time.DateTime), axis.Until.Format(time.DateTime), total, crashed, forced)

	return line
}

// bars are the tenures of a lane, drawn.
func (a axis) bars(tenures []tenure) (bars []bar) {
	for _, t := range tenures {
		x := a.at(t.Since)
		end := a.at(t.Until)

		if t.End == "" {
			end = 100
		}

		b := bar{Class: t.Class(), x: x, w: max(end-x, leastBar), n: 1, first: t, last: t}
		b.x = min(b.x, 100-b.w)

		if n := len(bars) - 1; n >= 0 && bars[n].Class == b.Class && b.w <= leastBar && b.x-(bars[n].x+bars[n].w) < gapless {
			bars[n].w = b.x + b.w - bars[n].x
			bars[n].n++
			bars[n].last = t
		} else {
			bars = append(bars, b)
		}

		if t.Kept.After(t.Until) {
			from := a.at(t.Until)
			bars = append(bars, bar{
				Class: "kept", x: from, w: max(a.at(t.Kept)-from, leastBar), n: 1,
				Title: "kept by a minimum hold until " + clock(t.Kept), first: t, last: t,
			})
		}
	}

	for i := range bars {
		if bars[i].Title == "" {
			bars[i].Title = bars[i].text()
		}
	}

	return bars
}

// text is what a bar says when it is pointed at.
func (b bar) text() string {
	if b.n > 1 {
		return fmt.Sprintf("%d tenures, tokens %d to %d, %s to %s", b.n, b.first.Token, b.last.Token, clock(b.first.Since), clock(b.last.Until))
	}

	t := b.first
	text := fmt.Sprintf("token %d, %s, %s to ", t.Token, visible(t.Owner), clock(t.Since))

	if t.End == "" {
		return text + "now"
	}

	text += clock(t.Until) + " (" + duration(t.Until.Sub(t.Since)) + "), " + strings.ToLower(t.EndTitle())
	if t.Late {
		text += ", and released later"
	}

	if t.Reason != "" {
		text += ": " + visible(t.Reason)
	}

	return text
}

// ticks are four marks, at round times.
func (a axis) ticks() (ticks []tick) {
	span := a.Until.Sub(a.Since)

	var step time.Duration

	for _, step = range []time.Duration{
		10 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, time.Second, 5 * time.Second, 15 * time.Second,
		time.Minute, 3 * time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 48 * time.Hour,
	} {
		if span/step <= 5 {
			break
		}
	}

	format := "15:04"

	switch {
	case step < time.Second:
		format = "15:04:05.000"
	case step < time.Minute:
		format = time.TimeOnly
	case step >= 24*time.Hour:
		format = "2 Jan"
	}

	for t := a.Since.Truncate(step).Add(step); t.Before(a.Until); t = t.Add(step) {
		at := a.at(t)
		anchor := "middle"

		switch {
		case at < 4:
			anchor = "start"
		case at > 96:
			anchor = "end"
		}

		ticks = append(ticks, tick{percent(at), t.Format(format), anchor})
	}

	return ticks
}
