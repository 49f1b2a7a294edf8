package qins

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/qinsconv/qinsconv/qins/codec"
)

var le = binary.LittleEndian

// A frame is one zstd frame (RFC 8878) with a content size, a content checksum
// and neither window nor dictionary. Its blocks hold Huffman-coded literals and
// no sequences, or one byte repeated, or are raw where that is smaller: codes are close to
// independent draws, so that looking for repeats costs time and finds nothing.
const (
	frameMagic = 0xfd2fb528
	// frameDescriptor says: content size of 4 bytes, single segment, checksum.
	frameDescriptor = 2<<6 | 1<<5 | 1<<2
	frameHeaderSize = 4 + 1 + 4
	frameOverhead   = frameHeaderSize + 4 // with the checksum

	blockMax        = 128 << 10
	blockMin        = 16 // below that nothing is to be gained
	blockHeaderSize = 3
	blockRaw        = 0
	blockRLE        = 1
	blockCompressed = 2
	// blockOverhead is what a compressed block takes beside its literals: its
	// header, that of the literals and the byte that says "no sequences".
	blockOverhead = blockHeaderSize + literalsHeaderSize + 1

	literalsHeaderSize = 5
	literalsCompressed = 2
	literals4Streams18 = 3 // four streams, sizes of 18 bits
)

// A frameWriter holds what compressing needs between frames.
type frameWriter struct {
	huff *huffman
	full *zstd.Encoder // for data that may repeat
	buf  []byte
}

func newFrameWriter(k *codec.Kernel) *frameWriter { return &frameWriter{huff: newHuffman(k)} }

// appendFrame appends a frame that holds src.
func (w *frameWriter) appendFrame(dst, src []byte) []byte {
	dst = le.AppendUint32(dst, frameMagic)
	dst = append(dst, frameDescriptor)
	dst = le.AppendUint32(dst, uint32(len(src)))
	for rest := src; ; {
		block := rest[:min(blockMax, len(rest))]
		rest = rest[len(block):]
		dst = w.appendBlock(dst, block, len(rest) == 0)
		if len(rest) == 0 {
			break
		}
	}
	return le.AppendUint32(dst, uint32(xxhash.Sum64(src)))
}

func (w *frameWriter) appendBlock(dst, src []byte, last bool) []byte {
	header := func(dst []byte, kind, size int) []byte {
		h := uint32(kind)<<1 | uint32(size)<<3
		if last {
			h |= 1
		}
		return append(dst, byte(h), byte(h>>8), byte(h>>16))
	}
	raw := func() []byte { return append(header(dst, blockRaw, len(src)), src...) }
	if len(src) < blockMin {
		return raw()
	}
	hist := histogramOf(src)
	if hist.single(src) {
		return append(header(dst, blockRLE, len(src)), src[0])
	}
	// Both headers are written once the size is known.
	const headers = blockHeaderSize + literalsHeaderSize
	out, smaller := w.huff.append(append(dst, make([]byte, headers)...), src, &hist)
	packed := len(out) - len(dst) - headers
	if !smaller || packed+blockOverhead >= len(src)+blockHeaderSize {
		return raw()
	}
	h := literalsCompressed | literals4Streams18<<2 | uint64(len(src))<<4 | uint64(packed)<<22 // 40 bits
	literals := append(header(out[:len(dst)], blockCompressed, literalsHeaderSize+packed+1),
		byte(h), byte(h>>8), byte(h>>16), byte(h>>24), byte(h>>32))
	return append(literals[:len(out)], 0)
}

// appendSmallest appends a frame made by the library's own compressor where
// that is smaller than appendFrame's. It is for data that may repeat.
func (w *frameWriter) appendSmallest(dst, src []byte) ([]byte, error) {
	start := len(dst)
	dst = w.appendFrame(dst, src)
	if w.full == nil {
		var err error
		if w.full, err = newEncoder(zstd.SpeedDefault, maxChunk); err != nil {
			return nil, err
		}
	}
	if w.buf = w.full.EncodeAll(src, w.buf[:0]); len(w.buf) < len(dst)-start {
		dst = append(dst[:start], w.buf...)
	}
	return dst, nil
}

// maxChunk is the size of the largest chunk, one of the widest elements.
const maxChunk = 8 * ChunkWeights

// newEncoder returns the library's compressor for frames of at most size bytes.
// With a window that is no larger than that takes, it needs less memory, and gives
// the same bytes.
func newEncoder(level zstd.EncoderLevel, size int) (*zstd.Encoder, error) {
	const largest = 8 << 20 // what these levels have without being told
	window := blockMax
	for window < min(size, largest) {
		window *= 2
	}
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window),
		zstd.WithLowerEncoderMem(true), zstd.WithSingleSegment(true), zstd.WithEncoderCRC(true), zstd.WithZeroFrames(true))
}

// estimate predicts the size of appendFrame's frame from histograms.
func (w *frameWriter) estimate(src []byte) int64 {
	size := int64(frameOverhead)
	for len(src) > 0 {
		block := src[:min(blockMax, len(src))]
		src = src[len(block):]
		size += w.estimateBlock(block)
	}
	return size
}

func (w *frameWriter) estimateBlock(src []byte) int64 {
	raw := int64(blockHeaderSize + len(src))
	if len(src) < blockMin {
		return raw
	}
	hist := histogramOf(src)
	if hist.single(src) {
		return blockHeaderSize + 1
	}
	if hist.noise(len(src)) {
		return raw
	}
	tree := &w.huff.tree
	tree.build(&hist)
	var ok bool
	if w.buf, ok = tree.append(w.buf[:0]); !ok {
		return raw
	}
	return min(raw, int64(blockOverhead+len(w.buf)+streamsSize(tree.bits(&hist))))
}

// A frameReader decodes frames.
type frameReader struct{ dec *zstd.Decoder }

// read decodes a frame that must hold exactly len(dst) bytes.
func (r *frameReader) read(dst, frame []byte) error {
	var h zstd.Header
	if err := h.Decode(frame); err != nil {
		return fmt.Errorf("reading the frame's header: %w", err)
	}
	switch {
	case h.Skippable:
		return errors.New("there is a skippable frame in place of data")
	case h.DictionaryID != 0:
		return errors.New("the frame wants a dictionary")
	case !h.SingleSegment || !h.HasFCS:
		return errors.New("the frame has a window in place of a content size")
	case h.FrameContentSize != uint64(len(dst)):
		return fmt.Errorf("the frame claims %d bytes, expected %d", h.FrameContentSize, len(dst))
	case !h.HasCheckSum:
		return errors.New("the frame has no checksum")
	}
	if n := frameSize(&h, frame); n >= 0 && n < len(frame) {
		return fmt.Errorf("there are %d bytes after the frame", len(frame)-n)
	}
	if r.dec == nil {
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true))
		if err != nil {
			return err
		}
		r.dec = dec
	}
	out, err := r.dec.DecodeAll(frame, dst[:0:len(dst)])
	if err != nil {
		return fmt.Errorf("decoding the frame: %w", err)
	}
	if len(out) != len(dst) {
		return fmt.Errorf("the frame holds %d bytes, expected %d", len(out), len(dst))
	}
	return nil
}

// frameSize returns the size of the frame that b begins with, with a checksum,
// or -1 where it does not end there. The decoder would take what follows for
// more frames.
func frameSize(h *zstd.Header, b []byte) int {
	at := h.HeaderSize
	for len(b)-at >= blockHeaderSize {
		block := int(b[at]) | int(b[at+1])<<8 | int(b[at+2])<<16
		size := block >> 3
		if block>>1&3 == blockRLE {
			size = 1
		}
		if at += blockHeaderSize + size; block&1 != 0 {
			return at + frameOverhead - frameHeaderSize
		}
	}
	return -1
}

// The index of a stream is the seek table of the zstd seekable format: a
// skippable frame at the end with the compressed and decompressed size of each
// frame. Before it stands, for codes, another skippable frame with the CRC-32C
// of each chunk's sign bytes, so that a chunk can be checked by itself.
const (
	skippableMagic  = 0x184d2a50
	signsMagic      = skippableMagic + 0x1
	seekTableMagic  = skippableMagic + 0xe
	seekableMagic   = 0x8f92eab1
	skippableHeader = 8
	seekEntrySize   = 8
	seekFooterSize  = 9
	signEntrySize   = 4
)

// tailSize is the size of everything after the frames of n chunks.
func tailSize(n int, signs bool) int64 {
	size := int64(skippableHeader + n*seekEntrySize + seekFooterSize)
	if signs {
		size += skippableHeader + int64(n)*signEntrySize
	}
	return size
}

// appendTail appends the index. signs is nil for kept tensors.
func appendTail(dst []byte, compressed, decompressed []int, signs []uint32) []byte {
	if signs != nil {
		dst = le.AppendUint32(dst, signsMagic)
		dst = le.AppendUint32(dst, uint32(len(signs)*signEntrySize))
		for _, crc := range signs {
			dst = le.AppendUint32(dst, crc)
		}
	}
	dst = le.AppendUint32(dst, seekTableMagic)
	dst = le.AppendUint32(dst, uint32(len(compressed)*seekEntrySize+seekFooterSize))
	for i := range compressed {
		dst = le.AppendUint32(dst, uint32(compressed[i]))
		dst = le.AppendUint32(dst, uint32(decompressed[i]))
	}
	dst = le.AppendUint32(dst, uint32(len(compressed)))
	dst = append(dst, 0) // no checksums: the frames have their own
	return le.AppendUint32(dst, seekableMagic)
}

// An index says where the frames of a stream lie.
type index struct {
	offsets []int64 // of each chunk's frame and the end of the last, in the stream
	signs   []uint32
}

// parseTail reads the index of a stream of the given size. sizes says how many
// bytes each chunk decodes to.
func parseTail(tail []byte, stream int64, chunks int, sizes func(i int) int, signs bool) (*index, error) {
	x := &index{}
	skippable := func(magic uint32, size int) ([]byte, error) {
		if got := le.Uint32(tail); got != magic {
			return nil, fmt.Errorf("the index begins with %#x, expected %#x", got, magic)
		}
		if got := le.Uint32(tail[4:]); int64(got) != int64(size) {
			return nil, fmt.Errorf("a part of the index has %d bytes, expected %d for %d chunks", got, size, chunks)
		}
		body := tail[skippableHeader:][:size]
		tail = tail[skippableHeader+size:]
		return body, nil
	}
	if signs {
		body, err := skippable(signsMagic, chunks*signEntrySize)
		if err != nil {
			return nil, err
		}
		x.signs = make([]uint32, chunks)
		for i := range x.signs {
			x.signs[i] = le.Uint32(body[i*signEntrySize:])
		}
	}
	body, err := skippable(seekTableMagic, chunks*seekEntrySize+seekFooterSize)
	if err != nil {
		return nil, err
	}
	footer := body[chunks*seekEntrySize:]
	if n := le.Uint32(footer); int64(n) != int64(chunks) || footer[4] != 0 || le.Uint32(footer[5:]) != seekableMagic {
		return nil, fmt.Errorf("the index ends with %x, not with the count of %d chunks", footer, chunks)
	}
	end := stream - tailSize(chunks, signs)
	x.offsets = make([]int64, chunks+1)
	for i := range chunks {
		entry := body[i*seekEntrySize:]
		size := int64(le.Uint32(entry))
		if got := le.Uint32(entry[4:]); int64(got) != int64(sizes(i)) {
			return nil, fmt.Errorf("chunk %d: the index claims %d bytes, expected %d", i, got, sizes(i))
		}
		if size > end-x.offsets[i] || size > int64(frameBound(sizes(i))) {
			return nil, fmt.Errorf("chunk %d: the index claims %d bytes, more than there are or can be", i, size)
		}
		x.offsets[i+1] = x.offsets[i] + size
	}
	if x.offsets[chunks] != end {
		return nil, fmt.Errorf("the index covers %d bytes of frames, expected %d", x.offsets[chunks], end)
	}
	return x, nil
}

// frameBound is the largest frame for n bytes: all blocks raw.
func frameBound(n int) int {
	blocks := max(1, (n+blockMax-1)/blockMax)
	return min(frameOverhead+blocks*blockHeaderSize+n, math.MaxInt32)
}
