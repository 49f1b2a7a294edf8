package qins

import (
	"math"
	"math/bits"

	"github.com/klauspost/compress/fse"

	"github.com/qinsconv/qinsconv/qins/codec"
)

// A tree is the Huffman tree of a block of literals, as RFC 8878, section 4.2.1,
// has it. Its making depends on nothing but the counts and takes no memory
// beside its own.
type tree struct {
	leaves, sorted [256 + 1]uint32          // a count above its symbol, which takes eight bits
	nodes          [256]uint32              // counts of inner nodes, from the smallest on
	used           [256]uint16              // leaves that the nodes before each took
	lengths        [codec.MaxPrefix + 1]int // codes of each length
	longest        int                      // of these lengths
	weights        [256]byte                // longest+1 less the length; 0: does not occur
	last           int                      // symbol that occurs
	fse            fse.Scratch
}

// build makes the tree for a histogram of at least two different bytes, less than
// 1<<24 in all.
func (t *tree) build(hist *histogram) {
	leaves, total := t.sort(hist)
	t.measure(leaves, total)

	// The rarest symbols have the longest codes.
	t.weights = [256]byte{}
	for length := t.longest; length > 0; length-- {
		n := t.lengths[length]
		for _, leaf := range leaves[:n] {
			t.weights[byte(leaf)] = byte(t.longest + 1 - length)
		}
		leaves = leaves[n:]
	}
	for t.last = len(t.weights) - 1; t.weights[t.last] == 0; {
		t.last--
	}
}

// sort returns the symbols that occur from the rarest on, the last one first
// where counts are equal, and the sum of the counts. Behind the symbols stands
// one more leaf, above all counts. It sorts by one byte of the counts after
// another, of which those of a short block have one.
func (t *tree) sort(hist *histogram) (leaves []uint32, total int) {
	from, to := &t.leaves, &t.sorted
	n, all := 0, uint32(0)
	for symbol := len(hist) - 1; symbol >= 0; symbol-- {
		count := hist[symbol]
		from[n] = count<<8 | uint32(symbol)
		if count > 0 {
			n++
		}
		total += int(count)
		all |= count
	}
	for shift := 8; all>>(shift-8) > 0; shift += 8 {
		var ends [256]int // of the leaves with each value of the byte
		for _, leaf := range from[:n] {
			ends[byte(leaf>>shift)]++
		}
		end := 0
		for i := range ends {
			end += ends[i]
			ends[i] = end
		}
		for i := n - 1; i >= 0; i-- {
			end := &ends[byte(from[i]>>shift)]
			*end--
			to[*end] = from[i]
		}
		from, to = to, from
	}
	from[n] = math.MaxUint32
	return from[:n+1], total
}

// longestFor returns how long the codes of n symbols may be that occur total
// times in all. Longer codes are for symbols that occur less than about four
// times: they save less than it takes to describe them. A bit more than n symbols
// need leaves half of all codes to the frequent ones.
func longestFor(n, total int) int {
	return min(codec.MaxPrefix, max(bits.Len(uint(n-1))+1, bits.Len(uint(total-1))-2))
}

// measure sets the number of codes of each length.
func (t *tree) measure(leaves []uint32, total int) {
	// A node joins the two rarest of the leaves and nodes that no other has
	// joined. Nodes are made in the order of their counts, so that these are
	// always the next of one or the other (van Leeuwen, "On the construction of
	// Huffman trees", 1976). Of equal ones the leaf comes first: that keeps the
	// longest codes short.
	n := len(leaves) - 1
	leaf := 0
	for node := range n - 1 {
		t.used[node] = uint16(leaf)
		t.nodes[node] = math.MaxUint32 // not to be taken yet
		a, b := leaves[leaf]>>8, t.nodes[2*node-leaf]
		sum := min(a, b)
		if a <= b {
			leaf++
		}
		a, b = leaves[leaf]>>8, t.nodes[2*node+1-leaf]
		sum += min(a, b)
		if a <= b {
			leaf++
		}
		t.nodes[node] = sum
	}
	t.used[n-1] = uint16(leaf)

	// The first nodes are the deepest. As many as lie at some depth or below it
	// took twice as many leaves and nodes, which are all that lie deeper. Leaves
	// that are too deep come up to the limit; debt is what they take there that is
	// not left, in codes of that length (Kraft's inequality).
	limit := longestFor(n, total)
	debt := -1 << limit
	t.lengths = [codec.MaxPrefix + 1]int{}
	for depth, nodes := 1, n-1; nodes > 0; depth++ {
		deeper := 2*nodes - int(t.used[nodes])
		count := int(t.used[nodes]) - int(t.used[deeper])
		t.longest = min(depth, limit)
		t.lengths[t.longest] += count
		debt += count << (limit - t.longest)
		nodes = deeper
	}
	if debt > 0 {
		t.repay(leaves, debt)
	}
}

// repay makes codes longer until there is room for all, each time one that gives
// about as much as is missing, or where that costs less, fewer (as zstd's
// HUF_setMaxHeight). The lengths are not always the best, which package-merge
// finds with more work; for the codes of Gaussian weights they are within 0.01 %,
// for contrived histograms up to 28 % above it.
func (t *tree) repay(leaves []uint32, debt int) {
	limit := t.longest
	var first [codec.MaxPrefix + 1]int // leaf with a code of each length
	for length := limit; length > 1; length-- {
		first[length-1] = first[length] + t.lengths[length]
	}
	for debt > 0 {
		// The rarest of each length, from the shortest that does not give too much.
		// What it costs is counted for the room that it gives.
		shortest := max(1, limit-bits.Len(uint(debt)))
		best, least := 0, uint64(math.MaxUint64)
		for length := shortest; length < limit; length++ {
			if t.lengths[length] == 0 {
				continue
			}
			cost := uint64(leaves[first[length]]>>8) << length
			if cost >= least {
				break
			}
			best, least = length, cost
		}
		for length := shortest; best == 0; length-- {
			if t.lengths[length] > 0 {
				best = length
			}
		}
		first[best]++
		t.lengths[best]--
		t.lengths[best+1]++
		debt -= 1 << (limit - 1 - best)
	}
	// What the last one gave too much makes the most frequent of the longest
	// codes shorter.
	t.lengths[limit] += debt
	t.lengths[limit-1] -= debt
}

// bits returns the size of the codes of all symbols.
func (t *tree) bits(hist *histogram) int {
	n := 0
	for symbol, count := range hist {
		n += int(count) * (t.longest + 1 - int(t.weights[symbol]))
	}
	return n
}

// setCodes gives the symbols their codes. Those of one length follow each other
// in the order of the symbols, after those that are longer.
func (t *tree) setCodes(p *codec.PrefixCode) {
	var next [codec.MaxPrefix + 1]uint16
	code := 0
	for length := t.longest; length > 0; length-- {
		next[length] = uint16(code)
		code = (code + t.lengths[length]) / 2
	}
	for symbol, w := range t.weights[:t.last+1] {
		if w > 0 {
			length := t.longest + 1 - int(w)
			p.Set(byte(symbol), next[length], length)
			next[length]++
		}
	}
}

// append appends the tree's description: the weights of all symbols before the
// last one that occurs, compressed by FSE or as they are, four bits each. It
// reports whether there is one; if not, it has appended nothing.
func (t *tree) append(dst []byte) ([]byte, bool) {
	const (
		maxLog  = 6   // of FSE's table
		maxSize = 127 // above that, the first byte counts weights
		maxRaw  = 128
	)
	weights := t.weights[:t.last]
	size := (len(weights) + 1) / 2
	if len(weights) > maxRaw {
		size = maxSize + 1
	}

	counts := t.fse.Histogram()[:codec.MaxPrefix+1]
	clear(counts)
	counts[0] = uint32(len(weights) + 1)
	for length := 1; length <= t.longest; length++ {
		counts[t.longest+1-length] = uint32(t.lengths[length])
		counts[0] -= uint32(t.lengths[length])
	}
	counts[t.weights[t.last]]--
	highest, most := 0, 0
	for w, count := range counts {
		if count > 0 {
			highest, most = w, max(most, int(count))
		}
	}
	t.fse.HistogramFinished(uint8(highest), most)
	t.fse.TableLog = maxLog
	// An error says that they cannot be compressed.
	if b, err := fse.Compress(weights, &t.fse); err == nil && len(b) < size {
		return append(append(dst, byte(len(b))), b...), true
	}
	if len(weights) > maxRaw {
		return dst, false
	}
	dst = append(dst, byte(maxSize+len(weights)))
	for i, w := range weights {
		if i%2 == 0 {
			dst = append(dst, w<<4)
		} else {
			dst[len(dst)-1] |= w
		}
	}
	return dst, true
}
