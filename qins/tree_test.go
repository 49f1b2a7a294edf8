package qins

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/qinsconv/qinsconv/qins/codec"
)

// histograms are of every kind that trees differ in, of at most a block.
func histograms() map[string]histogram {
	all := map[string]histogram{}
	add := func(name string, symbols int, count func(i int) uint32) {
		var h histogram
		for i := range symbols {
			h[i] = count(i)
		}
		all[name] = h
	}
	one := func(int) uint32 { return 1 }
	add("two symbols", 2, one)
	add("two symbols, one rare", 2, func(i int) uint32 { return 1 + uint32(i)*(blockMax-2) })
	for _, n := range []int{3, 100, 128, 129, 130, 200, 255, 256} {
		add(fmt.Sprint(n, " equal"), n, func(int) uint32 { return 7 })
		add(fmt.Sprint(n, " with one frequent"), n, func(i int) uint32 { return 1 + uint32(i/(n-1))*100_000 })
		add(fmt.Sprint(n, " rising"), n, func(i int) uint32 { return uint32(i + 1) })
	}
	a, b := uint32(0), uint32(1)
	add("Fibonacci", 24, func(int) uint32 { a, b = b, a+b; return a })
	a, b = 0, 1
	add("Fibonacci and 200 rare", 220, func(i int) uint32 {
		if i < 200 {
			return 1
		}
		a, b = b, a+b
		return a
	})
	add("powers of two", 17, func(i int) uint32 { return 1 << i })
	last := histogram{0: 1, 255: 1}
	all["first and last"] = last
	r := rand.New(rand.NewPCG(6, 1))
	for i := range 1000 {
		n := 2 + r.IntN(255)
		steep := r.Float64() * 4
		occur := max(0.01, r.Float64())
		var h histogram
		for len(h.symbols()) < 2 {
			sum := 0.0
			var share [256]float64
			for s := range n {
				if r.Float64() < occur {
					share[s] = math.Exp(steep * r.NormFloat64())
					sum += share[s]
				}
			}
			size := math.Exp(r.Float64() * math.Log(blockMax-256))
			for s := range n {
				h[s] = uint32(math.Ceil(share[s] / sum * size))
			}
		}
		all[fmt.Sprint("random ", i)] = h
	}
	return all
}

func (h *histogram) symbols() (symbols []byte) {
	for s, c := range h {
		if c > 0 {
			symbols = append(symbols, byte(s))
		}
	}
	return symbols
}

// leastBits returns the size of the codes of an optimal tree, by package-merge
// (Larmore and Hirschberg, "A fast algorithm for optimal length-limited Huffman
// codes", 1990).
func leastBits(h *histogram, limit int) int {
	// A package is made of leaves; each time that a leaf is taken it gets a bit.
	type pack struct{ count, bits int }
	var leaves, row []pack
	for _, s := range h.symbols() {
		leaves = append(leaves, pack{int(h[s]), int(h[s])})
	}
	order := func(a, b pack) int { return a.count - b.count }
	for range limit {
		next := slices.Clone(leaves)
		for i := 0; i+1 < len(row); i += 2 {
			next = append(next, pack{row[i].count + row[i+1].count, row[i].bits + row[i+1].bits})
		}
		slices.SortFunc(next, order)
		row = next
	}
	n := 0
	for _, p := range row[:2*len(leaves)-2] {
		n += p.bits
	}
	return n
}

// TestTree holds the lengths of codes to those of a Huffman tree, or where that
// has longer ones than are allowed, to little more than the best of that length.
func TestTree(t *testing.T) {
	var tr tree
	all := histograms()
	const gaussian = "Gaussian weights, "
	for _, n := range []int{300, 1024, 5000, blockMax} {
		all[fmt.Sprint(gaussian, n)] = histogramOf(gaussianCodes(t, n))
	}
	limited, sum, sumBest := 0, 0, 0
	for name, h := range all {
		tr.build(&h)
		symbols := h.symbols()
		total := 0
		for _, c := range h {
			total += int(c)
		}
		limit := longestFor(len(symbols), total)
		if tr.longest > limit || limit > codec.MaxPrefix {
			t.Errorf("%s: codes of %d bits, at most %d are allowed", name, tr.longest, limit)
		}
		if tr.last != int(symbols[len(symbols)-1]) {
			t.Errorf("%s: %d is taken for the last symbol", name, tr.last)
		}
		kraft, size := 0, 0
		for s, w := range tr.weights {
			if (w > 0) != (h[s] > 0) {
				t.Errorf("%s: symbol %d occurs %d times and has a weight of %d", name, s, h[s], w)
			}
			kraft += 1 << w >> 1
			size += int(h[s]) * (tr.longest + 1 - int(w))
		}
		if kraft != 1<<tr.longest {
			t.Errorf("%s: the codes take %d/%d of all", name, kraft, 1<<tr.longest)
		}
		if got := tr.bits(&h); got != size {
			t.Errorf("%s: tells %d bits, the codes take %d", name, got, size)
		}
		best := leastBits(&h, limit)
		if free := leastBits(&h, 40); free < best {
			limited++
		} else if size != best {
			t.Errorf("%s: %d bits, a Huffman tree has %d", name, size, best)
		}
		sum, sumBest = sum+size, sumBest+best
		most := 1.05 // few codes, a few of them very frequent
		if strings.HasPrefix(name, gaussian) {
			most = 1.0001
		}
		if size < best || float64(size) > most*float64(best) {
			t.Errorf("%s: %d bits, the best tree has %d", name, size, best)
		}
		for _, a := range symbols {
			for _, b := range symbols[1:] {
				if h[a] < h[b] && tr.weights[a] > tr.weights[b] || h[a] == h[b] && a < b && tr.weights[a] < tr.weights[b] {
					t.Errorf("%s: %d occurs %d times and %d %d times, their weights are %d and %d",
						name, a, h[a], b, h[b], tr.weights[a], tr.weights[b])
				}
			}
		}
	}
	if limited < 100 || float64(sum) > 1.0002*float64(sumBest) {
		t.Errorf("%d trees had codes that were too long; all have %d bits, the best ones %d", limited, sum, sumBest)
	}
}

// TestTreeDescription has the library read blocks of all kinds of trees.
func TestTreeDescription(t *testing.T) {
	stock, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer stock.Close()
	w := newFrameWriter(codec.Best())
	var tr tree
	packed, plain := 0, 0
	for name, h := range histograms() {
		tr.build(&h)
		before := []byte("before")
		b, ok := tr.append(before)
		if !bytes.HasPrefix(b, before) || !ok && len(b) != len(before) {
			t.Fatalf("%s: the destination has changed", name)
		}
		if b = b[len(before):]; ok && b[0] < 128 {
			packed++
		} else if ok {
			plain++
		} else if len(h.symbols()) <= 128 && tr.last <= 128 {
			t.Errorf("%s: no description of %d symbols", name, tr.last+1)
		}
		if ok && (len(b) > 1+127 || tr.last <= 128 && len(b) > 1+(tr.last+1)/2) {
			t.Errorf("%s: %d bytes describe %d symbols", name, len(b), tr.last+1)
		}

		var src []byte
		for s, c := range h {
			src = append(src, bytes.Repeat([]byte{byte(s)}, int(c))...)
		}
		src = src[:min(len(src), blockMax)]
		if got, err := stock.DecodeAll(w.appendFrame(nil, src), nil); err != nil || !bytes.Equal(got, src) {
			t.Errorf("%s: read another content: %v", name, err)
		}
	}
	if packed < 100 || plain < 20 {
		t.Errorf("%d descriptions are compressed, %d are not", packed, plain)
	}
}

// TestTreeAllocs holds the making of a tree to the memory it has.
func TestTreeAllocs(t *testing.T) {
	var tr tree
	var p codec.PrefixCode
	hist := histogramOf(gaussianCodes(t, 5000))
	dst := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(10, func() {
		tr.build(&hist)
		tr.append(dst)
		tr.setCodes(&p)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkTree makes the tree of a block, describes it and sets its codes.
func BenchmarkTree(b *testing.B) {
	for _, n := range []int{1024, blockMax} {
		hist := histogramOf(gaussianCodes(b, n))
		var t tree
		var p codec.PrefixCode
		var dst []byte
		parts := []struct {
			name string
			run  func()
		}{
			{"build", func() { t.build(&hist) }},
			{"append", func() { dst, _ = t.append(dst[:0]) }},
			{"codes", func() { t.setCodes(&p) }},
		}
		for _, part := range parts {
			b.Run(fmt.Sprintf("%d/%s", n, part.name), func(b *testing.B) {
				for b.Loop() {
					part.run()
				}
			})
		}
	}
}
