package codec

const ones = 0x0101010101010101

// ExpandSigns writes +1 or −1 as an int8 for each sign bit, the form in which
// the QINS seed stores signs. dst holds a byte for each weight.
func ExpandSigns(dst, signs []byte) {
	checkLengths(len(dst), dst, signs)
	for len(dst) >= 8 && len(signs) >= 1 {
		// Bit i alone in byte i, then 1 where it is set, then 1 or 255.
		spread := uint64(signs[0]) * ones & 0x8040201008040201
		set := (spread + 0x7f*ones) >> 7 & ones
		le.PutUint64(dst, set*0xfe+ones)
		dst, signs = dst[8:], signs[1:]
	}
	for i := range dst {
		dst[i] = 1 + signs[0]>>i&1*0xfe
	}
}

// PackSigns is the inverse of ExpandSigns. It reports false where a byte is
// neither +1 nor −1.
func PackSigns(signs, src []byte) bool {
	checkLengths(len(src), src, signs)
	bad := uint64(0)
	for len(src) >= 8 && len(signs) >= 1 {
		x := le.Uint64(src)
		set := x >> 7 & ones
		bad |= x ^ (set*0xfe + ones)
		signs[0] = byte(set * gather8 >> 56)
		src, signs = src[8:], signs[1:]
	}
	if len(src) > 0 {
		signs[0] = 0
	}
	for i, x := range src {
		set := x >> 7
		bad |= uint64(x ^ (set*0xfe + 1))
		signs[0] |= set << i
	}
	return bad == 0
}
