package codec

import "math"

// Errors are the sums of a whole tensor. Add the chunks in their order.
type Errors struct {
	Signal, Noise, Dot float64
	MaxAbs, MaxRel     float32
}

// Add adds the sums of the next chunk, its lanes as a fixed tree.
func (e *Errors) Add(s *Sums) {
	e.Signal += tree(&s.Signal)
	e.Noise += tree(&s.Noise)
	e.Dot += tree(&s.Dot)
	e.MaxAbs = max(e.MaxAbs, s.MaxAbs)
	e.MaxRel = max(e.MaxRel, s.MaxRel)
}

func tree(l *[Lanes]float64) float64 {
	return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

// SNR returns the signal-to-noise ratio in dB, +Inf where there is no noise.
func (e *Errors) SNR() float64 {
	if e.Noise == 0 {
		return math.Inf(1)
	}
	// math.Log10 is not the same to the last bit everywhere.
	return lnDD(e.Signal/e.Noise).hi * (10 / math.Ln10)
}

// Cosine returns the cosine of the angle between the weights and what they
// decode to, 1 where both are zero.
func (e *Errors) Cosine() float64 {
	// |w − g|² = |w|² − 2·w·g + |g|²
	decoded := e.Noise - e.Signal + float64(2*e.Dot)
	if e.Signal == 0 && decoded <= 0 {
		return 1
	}
	return e.Dot / math.Sqrt(float64(e.Signal*decoded))
}
