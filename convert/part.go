package convert

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Part is one of several shares of a model's files, each for a machine of its
// own. The zero value is all.
type Part struct{ Index, Count int } // from 1

// ParsePart parses "I/N".
func ParsePart(s string) (Part, error) {
	index, count, ok := strings.Cut(s, "/")
	var p Part
	var err error
	if p.Index, err = strconv.Atoi(index); err == nil {
		p.Count, err = strconv.Atoi(count)
	}
	if !ok || err != nil || p.Count < 1 || p.check() != nil {
		return Part{}, &OptionError{fmt.Errorf("part %q: expected I/N with I from 1 to N", s)}
	}
	return p, nil
}

func (p Part) check() error {
	if p != (Part{}) && (p.Index < 1 || p.Index > p.Count) {
		return fmt.Errorf("part %d of %d: expected a number from 1 to %d", p.Index, p.Count, p.Count)
	}
	return nil
}

// isAll reports whether there are no other parts.
func (p Part) isAll() bool { return p.Count <= 1 }

// A unit is a file that falls to one part.
type unit struct {
	name string
	size int64
}

// share returns the indices, ascending, of the units that fall to the part. Of
// the largest units each goes to the part that has least, so that every machine
// finds the same shares.
func (p Part) share(units []unit) []int {
	order := make([]int, len(units))
	for i := range order {
		order[i] = i
	}
	if p.isAll() {
		return order
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(units[b].size, units[a].size), cmp.Compare(units[a].name, units[b].name))
	})
	load := make([]int64, min(p.Count, len(units))) // further parts have nothing to do
	var mine []int
	for _, i := range order {
		least := 0
		for k := range load {
			if load[k] < load[least] {
				least = k
			}
		}
		// An empty file takes time as well.
		load[least] += units[i].size + 1
		if least == p.Index-1 {
			mine = append(mine, i)
		}
	}
	slices.Sort(mine)
	return mine
}

// units lists the files of a model in the order of its shards.
func (m *model) units() []unit {
	var units []unit
	for _, s := range m.sets {
		for _, f := range s.files {
			units = append(units, unit{outputName(f.name), f.size})
		}
	}
	slices.SortFunc(units, func(a, b unit) int { return strings.Compare(a.name, b.name) })
	return units
}

// outputs lists the names of the files that a model becomes.
func (m *model) outputs() []string {
	var names []string
	for _, u := range m.units() {
		names = append(names, u.name)
	}
	return names
}

// sizeOf is the size of those units together.
func sizeOf(units []unit, mine []int) int64 {
	n := int64(0)
	for _, i := range mine {
		n += units[i].size
	}
	return n
}

// overall turns the progress of one file after another into that of them all.
type overall struct {
	events      func(Event)
	total, done int64
}

func newOverall(events func(Event), total int64) *overall {
	return &overall{events: events, total: total}
}

// advance says that a file of that size is finished.
func (o *overall) advance(size int64) {
	o.done += size
	o.events(Progress{Phase: "convert", Done: o.done, Total: o.total})
}

// phaseShares says roughly which part of a file's time each phase takes, from
// and up to.
var phaseShares = map[string][2]float64{"survey": {0, 0.2}, "convert": {0.2, 0.9}, "hash": {0.9, 1}, "estimate": {0.2, 1}, "decode": {0, 1}}

// of returns the events for a file of that size.
func (o *overall) of(size int64) func(Event) {
	return func(e Event) {
		p, ok := e.(Progress)
		if !ok {
			o.events(e)
			return
		}
		if share, ok := phaseShares[p.Phase]; ok && p.Total > 0 {
			done := share[0] + (share[1]-share[0])*float64(p.Done)/float64(p.Total)
			o.events(Progress{Phase: "convert", Done: o.done + int64(done*float64(size)), Total: o.total})
		}
	}
}
