package convert

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestShare deals out files of many random lists. Each falls to exactly one
// part, and no part has more than another by more than one file.
func TestShare(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 2000 {
		units := make([]unit, r.IntN(100))
		var largest int64
		for i := range units {
			units[i].name = fmt.Sprintf("%03d", i)
			switch round % 4 {
			case 0:
				units[i].size = 1 << 20
			case 1:
				units[i].size = r.Int64N(1 << 30)
			case 2:
				units[i].size = int64(1) << r.IntN(34)
			}
			largest = max(largest, units[i].size)
		}
		// Every machine lists them in an order of its own.
		shuffled := slices.Clone(units)
		r.Shuffle(len(shuffled), func(a, b int) { shuffled[a], shuffled[b] = shuffled[b], shuffled[a] })
		n := 1 + r.IntN(20)
		owner := map[string]int{}
		loads, counts := make([]int64, n), make([]int, n)
		for i := range n {
			p := Part{i + 1, n}
			mine := p.share(units)
			if !slices.IsSorted(mine) {
				t.Fatalf("part %d/%d is not in order: %v", i+1, n, mine)
			}
			var names []string
			for _, k := range mine {
				if o, taken := owner[units[k].name]; taken {
					t.Fatalf("%s falls to parts %d and %d of %d", units[k].name, o, i+1, n)
				}
				owner[units[k].name] = i + 1
				loads[i] += units[k].size
				names = append(names, units[k].name)
			}
			counts[i] = len(mine)
			var others []string
			for _, k := range p.share(shuffled) {
				others = append(others, shuffled[k].name)
			}
			slices.Sort(others)
			if !slices.Equal(names, others) {
				t.Fatalf("part %d/%d depends on the order: %q and %q", i+1, n, names, others)
			}
		}
		if len(owner) != len(units) {
			t.Fatalf("%d of %d files fall to one of %d parts", len(owner), len(units), n)
		}
		if d := slices.Max(loads) - slices.Min(loads); d > largest+int64(len(units)) {
			t.Fatalf("loads of %d parts differ by %d, the largest file has %d: %v", n, d, largest, loads)
		}
		if d := slices.Max(counts) - slices.Min(counts); round%4 == 0 && d > 1 {
			t.Fatalf("equal files are dealt out as %v", counts)
		}
	}
}

// TestShareOfMany has more parts than there are files, or memory.
func TestShareOfMany(t *testing.T) {
	units := []unit{{"a", 3}, {"b", 5}, {"c", 0}}
	for i, want := range [][]int{{1}, {0}, {2}, nil} {
		for _, n := range []int{4, 1 << 30, math.MaxInt} {
			if mine := (Part{i + 1, n}).share(units); !slices.Equal(mine, want) {
				t.Errorf("part %d/%d: %v, expected %v", i+1, n, mine, want)
			}
		}
	}
	if mine := (Part{1, 2}).share(nil); len(mine) > 0 {
		t.Errorf("of nothing: %v", mine)
	}
}

// TestParsePart holds what a part may be.
func TestParsePart(t *testing.T) {
	for text, want := range map[string]Part{"1/1": {1, 1}, "1/4": {1, 4}, "4/4": {4, 4}, "64/1000": {64, 1000}} {
		if p, err := ParsePart(text); err != nil || p != want {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "/", "1", "1/", "/1", "0/4", "5/4", "-1/4", "1/-4", "1/0", "0/0", "1/4/4", "a/b", "1/4x", " 1/4", "1.5/4", "99999999999999999999/4", "1/99999999999999999999"} {
		if p, err := ParsePart(text); err == nil {
			t.Errorf("%q is taken for %v", text, p)
		}
	}
}
