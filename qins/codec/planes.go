package codec

// Byte planes bring together the bytes of one significance from many elements:
// first the most significant byte of each, then the next, down to the least.
// The exponents of trained weights repeat, their low mantissa bits do not, so
// that an entropy coder finds in the planes what it misses in the elements.
//
// With rotation each element is first rotated left by one bit. That puts the
// sign, which is noise, lowest, and the first plane of F32 and BF16 is exactly
// the exponent; that of F16 is the exponent and three bits of mantissa.

// SplitPlanes writes the byte planes of src, little-endian elements of 2, 4 or
// 8 bytes, to dst, which has the same length. Elements of 2 and 4 bytes can be
// rotated. It uses the kernel that Best returns.
func SplitPlanes(dst, src []byte, size int, rotate bool) { Best().SplitPlanes(dst, src, size, rotate) }

// JoinPlanes is the inverse of SplitPlanes.
func JoinPlanes(dst, src []byte, size int, rotate bool) { Best().JoinPlanes(dst, src, size, rotate) }

// SplitPlanes is the function of that name with this kernel.
func (k *Kernel) SplitPlanes(dst, src []byte, size int, rotate bool) {
	checkPlanes(dst, src, size, rotate)
	switch size {
	case 2:
		k.split2(dst, src, rotate)
	case 4:
		k.split4(dst, src, rotate)
	case 8:
		split8(dst, src)
	}
}

// JoinPlanes is the function of that name with this kernel.
func (k *Kernel) JoinPlanes(dst, src []byte, size int, rotate bool) {
	checkPlanes(dst, src, size, rotate)
	switch size {
	case 2:
		k.join2(dst, src, rotate)
	case 4:
		k.join4(dst, src, rotate)
	case 8:
		join8(dst, src)
	}
}

func checkPlanes(dst, src []byte, size int, rotate bool) {
	switch {
	case size != 2 && size != 4 && size != 8, rotate && size == 8:
		panic("codec: no byte planes for elements of this size")
	case len(dst) != len(src) || len(src)%size != 0:
		panic("codec: planes and elements differ in length")
	}
}

// The loops below take eight elements at a time, which are eight bytes of each
// plane. Those that kernels may begin start at element i.

func split2(dst, src []byte, rotate bool) { split2From(0, dst, src, rotate) }
func split4(dst, src []byte, rotate bool) { split4From(0, dst, src, rotate) }
func join2(dst, src []byte, rotate bool)  { join2From(0, dst, src, rotate) }
func join4(dst, src []byte, rotate bool)  { join4From(0, dst, src, rotate) }

// rotation returns shifts and a mask for rotating the elements in a word by one
// bit, or by none.
func rotation(rotate bool, width uint) (left, right uint, low uint64) {
	if !rotate {
		return 0, 0, 0
	}
	if width == 16 {
		return 1, 15, 0x0001000100010001
	}
	return 1, 31, 0x0000000100000001
}

func split2From(i int, dst, src []byte, rotate bool) {
	n := len(src) / 2
	p1, p0 := dst[:n], dst[n:]
	left, right, low := rotation(rotate, 16)
	src = src[2*i:]
	for ; len(src) >= 16 && len(p0)-i >= 8 && len(p1)-i >= 8; i += 8 {
		a, b := le.Uint64(src), le.Uint64(src[8:])
		src = src[16:]
		a = a<<(left&63)&^low | a>>(right&63)&low
		b = b<<(left&63)&^low | b>>(right&63)&low
		a, b = unzip(a), unzip(b)
		le.PutUint64(p0[i:], a&(1<<32-1)|b<<32)
		le.PutUint64(p1[i:], a>>32|b>>32<<32)
	}
	for ; len(src) >= 2; i++ {
		w := le.Uint16(src)
		src = src[2:]
		if rotate {
			w = w<<1 | w>>15
		}
		p0[i], p1[i] = byte(w), byte(w>>8)
	}
}

func join2From(i int, dst, src []byte, rotate bool) {
	n := len(src) / 2
	p1, p0 := src[:n], src[n:]
	left, right, low := rotation(rotate, 16)
	high := low << (right & 63)
	dst = dst[2*i:]
	for ; len(dst) >= 16 && len(p0)-i >= 8 && len(p1)-i >= 8; i += 8 {
		x, y := le.Uint64(p0[i:]), le.Uint64(p1[i:])
		a := zip(x&(1<<32-1) | y<<32)
		b := zip(x>>32 | y>>32<<32)
		le.PutUint64(dst, a>>(left&63)&^high|a<<(right&63)&high)
		le.PutUint64(dst[8:], b>>(left&63)&^high|b<<(right&63)&high)
		dst = dst[16:]
	}
	for ; len(dst) >= 2; i++ {
		w := uint16(p0[i]) | uint16(p1[i])<<8
		if rotate {
			w = w>>1 | w<<15
		}
		le.PutUint16(dst, w)
		dst = dst[2:]
	}
}

func split4From(i int, dst, src []byte, rotate bool) {
	n := len(src) / 4
	p3, p2, p1, p0 := dst[:n], dst[n:2*n], dst[2*n:3*n], dst[3*n:]
	left, right, low := rotation(rotate, 32)
	src = src[4*i:]
	for ; len(src) >= 32 && len(p0)-i >= 8 && len(p1)-i >= 8 && len(p2)-i >= 8 && len(p3)-i >= 8; i += 8 {
		a, b, c, d := le.Uint64(src), le.Uint64(src[8:]), le.Uint64(src[16:]), le.Uint64(src[24:])
		src = src[32:]
		a = zip(a<<(left&63)&^low | a>>(right&63)&low)
		b = zip(b<<(left&63)&^low | b>>(right&63)&low)
		c = zip(c<<(left&63)&^low | c>>(right&63)&low)
		d = zip(d<<(left&63)&^low | d>>(right&63)&low)
		a, b = exchange(a, b, 16, 0x0000ffff0000ffff)
		c, d = exchange(c, d, 16, 0x0000ffff0000ffff)
		a, c = exchange(a, c, 32, 0x00000000ffffffff)
		b, d = exchange(b, d, 32, 0x00000000ffffffff)
		le.PutUint64(p0[i:], a)
		le.PutUint64(p1[i:], b)
		le.PutUint64(p2[i:], c)
		le.PutUint64(p3[i:], d)
	}
	for ; len(src) >= 4; i++ {
		w := le.Uint32(src)
		src = src[4:]
		if rotate {
			w = w<<1 | w>>31
		}
		p0[i], p1[i], p2[i], p3[i] = byte(w), byte(w>>8), byte(w>>16), byte(w>>24)
	}
}

func join4From(i int, dst, src []byte, rotate bool) {
	n := len(src) / 4
	p3, p2, p1, p0 := src[:n], src[n:2*n], src[2*n:3*n], src[3*n:]
	left, right, low := rotation(rotate, 32)
	high := low << (right & 63)
	dst = dst[4*i:]
	for ; len(dst) >= 32 && len(p0)-i >= 8 && len(p1)-i >= 8 && len(p2)-i >= 8 && len(p3)-i >= 8; i += 8 {
		a, b, c, d := le.Uint64(p0[i:]), le.Uint64(p1[i:]), le.Uint64(p2[i:]), le.Uint64(p3[i:])
		a, c = exchange(a, c, 32, 0x00000000ffffffff)
		b, d = exchange(b, d, 32, 0x00000000ffffffff)
		a, b = exchange(a, b, 16, 0x0000ffff0000ffff)
		c, d = exchange(c, d, 16, 0x0000ffff0000ffff)
		a, b, c, d = unzip(a), unzip(b), unzip(c), unzip(d)
		le.PutUint64(dst, a>>(left&63)&^high|a<<(right&63)&high)
		le.PutUint64(dst[8:], b>>(left&63)&^high|b<<(right&63)&high)
		le.PutUint64(dst[16:], c>>(left&63)&^high|c<<(right&63)&high)
		le.PutUint64(dst[24:], d>>(left&63)&^high|d<<(right&63)&high)
		dst = dst[32:]
	}
	for ; len(dst) >= 4; i++ {
		w := uint32(p0[i]) | uint32(p1[i])<<8 | uint32(p2[i])<<16 | uint32(p3[i])<<24
		if rotate {
			w = w>>1 | w<<31
		}
		le.PutUint32(dst, w)
		dst = dst[4:]
	}
}

func split8(dst, src []byte) {
	n := len(src) / 8
	i := 0
	for ; n-i >= 8; i += 8 {
		var m [8]uint64
		for k := range m {
			m[k] = le.Uint64(src[8*(i+k):])
		}
		transpose(&m)
		for k, x := range m {
			le.PutUint64(dst[(7-k)*n+i:], x)
		}
	}
	for ; i < n; i++ {
		w := le.Uint64(src[8*i:])
		for k := range 8 {
			dst[(7-k)*n+i] = byte(w >> (8 * k))
		}
	}
}

func join8(dst, src []byte) {
	n := len(src) / 8
	i := 0
	for ; n-i >= 8; i += 8 {
		var m [8]uint64
		for k := range m {
			m[k] = le.Uint64(src[(7-k)*n+i:])
		}
		transpose(&m)
		for k, x := range m {
			le.PutUint64(dst[8*(i+k):], x)
		}
	}
	for ; i < n; i++ {
		w := uint64(0)
		for k := range 8 {
			w |= uint64(src[(7-k)*n+i]) << (8 * k)
		}
		le.PutUint64(dst[8*i:], w)
	}
}

// exchange swaps the bits of a that mask selects after a shift with those of b
// that it selects: one step of transposing a matrix (Hacker's Delight, 7-3).
func exchange(a, b uint64, shift uint, mask uint64) (uint64, uint64) {
	t := (a>>(shift&63) ^ b) & mask
	return a ^ t<<(shift&63), b ^ t
}

// within is exchange of one word's bits with others of the same word.
func within(x uint64, shift uint, mask uint64) uint64 {
	t := (x>>(shift&63) ^ x) & mask
	return x ^ t<<(shift&63) ^ t
}

// unzip moves bytes 0, 2, 4, 6 to the lower half and the others to the upper.
func unzip(x uint64) uint64 {
	return within(within(x, 8, 0x0000ff000000ff00), 16, 0x00000000ffff0000)
}

// zip is the inverse: it interleaves the bytes of the two halves.
func zip(x uint64) uint64 {
	return within(within(x, 16, 0x00000000ffff0000), 8, 0x0000ff000000ff00)
}

// transpose transposes a matrix of 8×8 bytes.
func transpose(m *[8]uint64) {
	for i := 0; i < 8; i += 2 {
		m[i], m[i+1] = exchange(m[i], m[i+1], 8, 0x00ff00ff00ff00ff)
	}
	for _, i := range [4]int{0, 1, 4, 5} {
		m[i], m[i+2] = exchange(m[i], m[i+2], 16, 0x0000ffff0000ffff)
	}
	for i := range 4 {
		m[i], m[i+4] = exchange(m[i], m[i+4], 32, 0x00000000ffffffff)
	}
}
