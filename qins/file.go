package qins

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/safetensors"
	"github.com/qinsconv/qinsconv/qins/codec"
)

// A File is an open .qins file. Its methods may be called by many goroutines
// at once.
type File struct {
	st       *safetensors.File
	closer   io.Closer // nil where the caller closes st
	header   Header
	metadata []format.Entry
	byName   map[string]int
	stored   []stored
	readers  sync.Pool // of *ChunkReader
}

// stored is what the file holds of one tensor of the source.
type stored struct {
	planes []plane // with their places in the file

	once    sync.Once
	err     error
	index   *index
	decoder *codec.Decoder
}

// Open opens the .qins file at path and checks its header.
func Open(path string) (*File, error) {
	s, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	f, err := New(s)
	if err != nil {
		s.Close()
		return nil, err
	}
	f.closer = s
	return f, nil
}

// Close closes a file that Open opened.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// Name returns the name that errors give the file.
func (f *File) Name() string { return f.st.Name() }

// Size returns the length of the file in bytes.
func (f *File) Size() int64 { return f.st.Size() }

// HeaderSize returns the number of bytes before the data, padding included.
func (f *File) HeaderSize() int64 { return f.st.HeaderSize() }

// PaddingSize returns how many of these bytes are padding.
func (f *File) PaddingSize() int64 { return f.st.PaddingSize() }

// New checks that an open safetensors file is a .qins file. The caller keeps
// closing it.
func New(s *safetensors.File) (*File, error) {
	f := &File{st: s}
	text := ""
	for _, e := range s.Metadata() {
		if e.Key == MetadataKey {
			text = e.Value
		} else {
			f.metadata = append(f.metadata, e)
		}
	}
	if !IsQINS(s) {
		return nil, &format.Error{File: s.Name(), Problem: "this is no .qins file: its metadata has no entry " + format.Quote(MetadataKey)}
	}
	h, err := parseHeader(s.Name(), text)
	if err != nil {
		return nil, err
	}
	f.header = *h
	return f, f.attach()
}

// IsQINS reports whether a safetensors file describes itself as a .qins file.
func IsQINS(s *safetensors.File) bool {
	return slices.ContainsFunc(s.Metadata(), func(e format.Entry) bool { return e.Key == MetadataKey })
}

// attach finds every plane in the file and checks that there is nothing else.
func (f *File) attach() error {
	present := make(map[string]*format.Tensor, len(f.Planes()))
	for i := range f.Planes() {
		p := &f.Planes()[i]
		present[p.Name] = p
	}
	f.byName = make(map[string]int, len(f.header.Tensors))
	f.stored = make([]stored, len(f.header.Tensors))
	var total int64
	for i := range f.header.Tensors {
		t := &f.header.Tensors[i]
		f.byName[t.Name] = i
		planes := t.planes()
		for j := range planes {
			p := &planes[j]
			bad := func(problem, found, expected string) error {
				return &format.Error{File: f.Name(), Tensor: t.Name, Problem: problem, Found: found, Expected: expected}
			}
			got := present[p.Name]
			if got == nil {
				return bad("its plane "+format.Quote(p.Name)+" is missing, or belongs to two tensors", "", "")
			}
			delete(present, p.Name)
			total += got.Size
			ok := got.DType == p.DType && (p.stream && len(got.Shape) == 1 || got.Shape.String() == p.Shape.String())
			if !ok {
				return bad("its plane "+format.Quote(p.Name)+" does not fit the description",
					fmt.Sprintf("%s %s", got.DType, got.Shape), fmt.Sprintf("%s %s", p.DType, p.Shape))
			}
			p.Tensor = *got
			if p.stream {
				if least := tailSize(Chunks(t.DType, t.Size()), t.Action == Encoded); p.Size < least {
					return bad("the plane "+format.Quote(p.Name)+" is too short for its index",
						fmt.Sprintf("%d bytes", p.Size), fmt.Sprintf("at least %d", least))
				}
			}
		}
		f.stored[i].planes = planes
	}
	for name := range present {
		return &format.Error{File: f.Name(), Tensor: name, Problem: "the qins metadata does not describe this tensor"}
	}
	if data := f.Size() - f.HeaderSize(); total != data {
		return &format.Error{File: f.Name(), Problem: "planes share their storage",
			Found: fmt.Sprintf("%d bytes of planes in %d bytes of data", total, data)}
	}
	return nil
}

// Planes lists the tensors of the file itself, as a safetensors reader sees
// them.
func (f *File) Planes() []format.Tensor { return f.st.Tensors() }

// Header returns the file's description. Callers do not change it.
func (f *File) Header() *Header { return &f.header }

// Tensors lists the source's tensors in the order of its header. Callers do not
// change the slice.
func (f *File) Tensors() []Tensor { return f.header.Tensors }

// Metadata lists the entries of the source's metadata.
func (f *File) Metadata() []format.Entry { return f.metadata }

// Lookup returns the index in Tensors of the tensor with that name.
func (f *File) Lookup(name string) (int, bool) {
	i, ok := f.byName[name]
	return i, ok
}

// Stored returns the index of the tensor that holds tensor i's data: i itself
// unless it is tied, and -1 where another file holds it.
func (f *File) Stored(i int) int {
	t := &f.header.Tensors[i]
	switch {
	case t.TiedIn != "":
		return -1
	case t.Action == Tied:
		return f.byName[t.TiedTo]
	}
	return i
}

// here returns an error where another file holds tensor i's data.
func (f *File) here(i int) error {
	t := &f.header.Tensors[i]
	if t.TiedIn == "" {
		return nil
	}
	return &format.Error{File: f.Name(), Tensor: t.Name, Problem: "its data is in another file of the model",
		Found: "a tie to " + format.Quote(t.TiedTo) + " in " + format.Quote(t.TiedIn)}
}

// StoredSize returns the bytes that tensor i takes in the file, which is none
// for a tied one.
func (f *File) StoredSize(i int) int64 {
	n := int64(0)
	for _, p := range f.stored[i].planes {
		n += p.Size
	}
	return n
}

// PlanesOf lists the planes of tensor i, codes and signs or data first.
func (f *File) PlanesOf(i int) []format.Tensor {
	var list []format.Tensor
	for _, p := range f.stored[i].planes {
		list = append(list, p.Tensor)
	}
	return list
}

// prepare reads, once, the index and the decoding table of stored tensor i.
func (f *File) prepare(i int) (*stored, error) {
	s := &f.stored[i]
	s.once.Do(func() {
		if s.err = f.here(i); s.err != nil {
			return
		}
		t := &f.header.Tensors[i]
		if t.Action == Tied {
			s.err = &format.Error{File: f.Name(), Tensor: t.Name, Problem: "its data is stored under another name", Found: "a tie to " + format.Quote(t.TiedTo)}
			return
		}
		s.err = f.load(t, s)
	})
	return s, s.err
}

func (f *File) load(t *Tensor, s *stored) error {
	bad := func(problem string, err error) error {
		return &format.Error{File: f.Name(), Tensor: t.Name, Problem: problem, Err: err}
	}
	if t.Action == Encoded {
		for k, p := range s.planes[maxPlanes:] {
			var value [4]byte
			if err := format.ReadFull(f.st, value[:], p.Offset); err != nil {
				return err
			}
			if got := math.Float32frombits(le.Uint32(value[:])); math.Float32bits(got) != math.Float32bits(t.Codec.Params[k]) {
				return &format.Error{File: f.Name(), Tensor: t.Name, Problem: "plane " + format.Quote(p.Name) + " differs from the metadata",
					Found: fmt.Sprint(got), Expected: fmt.Sprint(t.Codec.Params[k])}
			}
		}
		var err error
		if s.decoder, err = newDecoder(t.Codec, t.DType); err != nil {
			return bad("bad codec parameters", err)
		}
	}
	if p := &s.planes[storedPlane]; p.stream {
		n := Chunks(t.DType, t.Size())
		signs := t.Action == Encoded
		tail := make([]byte, tailSize(n, signs)) // attach saw that there are as many bytes
		if err := format.ReadFull(f.st, tail, p.Offset+p.Size-int64(len(tail))); err != nil {
			return err
		}
		var err error
		if s.index, err = parseTail(tail, p.Size, n, func(i int) int { return t.frameSize(i) }, signs); err != nil {
			return bad("bad index", err)
		}
	}
	return nil
}

// frameSize returns how many bytes chunk i's frame decodes to.
func (t *Tensor) frameSize(i int) int {
	_, size := t.chunk(i)
	if t.Action == Encoded {
		size /= elementSize(t.DType)
	}
	return size
}

// Check compares the planes of stored tensor i with its CRC-32C and decodes
// every chunk. It reads bounded pieces.
func (f *File) Check(ctx context.Context, i int) error {
	r := f.reader()
	defer f.readers.Put(r)
	t := &f.header.Tensors[i]
	buf := resize(r.out, ChunkSize(t.DType))
	r.out = buf
	var sums TensorSum
	for c := range Chunks(t.DType, t.Size()) {
		if err := ctx.Err(); err != nil {
			return err
		}
		s, _, err := r.Read(buf, i, c)
		if err != nil {
			return err
		}
		sums.Add(s)
	}
	return f.CheckSum(i, &sums)
}

func (f *File) reader() *ChunkReader {
	if r, ok := f.readers.Get().(*ChunkReader); ok {
		return r
	}
	return f.NewChunkReader()
}

// ReadElements fills dst with elements of tensor i in the source's dtype,
// beginning with element first. Only the chunks that it touches are read.
// Elements of packed and block dtypes count as bytes.
func (f *File) ReadElements(dst []byte, i int, first int64) error {
	t := &f.header.Tensors[i]
	size := int64(elementSize(t.DType)) // that of a view where i is one
	at := first * size
	if len(dst)%int(size) != 0 || first < 0 || first > t.Size()/size || int64(len(dst)) > t.Size()-at {
		return &format.Error{File: f.Name(), Tensor: t.Name, Problem: "elements outside the tensor were asked for",
			Found: fmt.Sprintf("%d bytes from element %d", len(dst), first), Expected: fmt.Sprintf("%d elements in all", t.Size()/size)}
	}
	if err := f.here(i); err != nil {
		return err
	}
	i = f.Stored(i)
	t = &f.header.Tensors[i]
	r := f.reader()
	defer f.readers.Put(r)
	full := int64(ChunkSize(t.DType))
	for len(dst) > 0 {
		c := int(at / full)
		off, n := t.chunk(c)
		if at == off && len(dst) >= n {
			if _, _, err := r.Read(dst[:n], i, c); err != nil {
				return err
			}
			dst, at = dst[n:], at+int64(n)
			continue
		}
		r.out = resize(r.out, n)
		if _, _, err := r.Read(r.out, i, c); err != nil {
			return err
		}
		copied := copy(dst, r.out[at-off:n])
		dst, at = dst[copied:], at+int64(copied)
	}
	return nil
}

// Float32 returns all elements of the tensor with that name, which is encoded
// or of dtype F32, F16 or BF16.
func (f *File) Float32(name string) ([]float32, error) {
	i, ok := f.Lookup(name)
	if !ok {
		return nil, &format.Error{File: f.Name(), Tensor: name, Problem: "there is no such tensor"}
	}
	return f.Float32Range(name, 0, f.header.Tensors[i].Elements())
}

// Float32Range returns n elements of the tensor with that name, beginning with
// element first of its row-major order.
func (f *File) Float32Range(name string, first, n int64) ([]float32, error) {
	i, ok := f.Lookup(name)
	if !ok {
		return nil, &format.Error{File: f.Name(), Tensor: name, Problem: "there is no such tensor"}
	}
	t := &f.header.Tensors[i]
	if !Encodable(t.DType) {
		return nil, &format.Error{File: f.Name(), Tensor: name, Problem: "a tensor of dtype " + t.DType.String() + " cannot be read as float32"}
	}
	if total := t.Elements(); first < 0 || n < 0 || n > total || first > total-n {
		return nil, &format.Error{File: f.Name(), Tensor: name, Problem: "elements outside the tensor were asked for",
			Found: fmt.Sprintf("%d from %d", n, first), Expected: fmt.Sprintf("%d in all", total)}
	}
	if err := f.here(i); err != nil {
		return nil, err
	}
	if _, err := f.prepare(f.Stored(i)); err != nil { // sees a false claim of size before room is made for it
		return nil, err
	}
	out := make([]float32, n)
	size := elementSize(t.DType)
	buf := make([]byte, min(n, ChunkWeights)*int64(size))
	for at := int64(0); at < n; {
		part := buf[:min(int64(len(buf)), (n-at)*int64(size))]
		if err := f.ReadElements(part, i, first+at); err != nil {
			return nil, err
		}
		count := int64(len(part) / size)
		if err := toFloat32(out[at:at+count], part, t.DType); err != nil {
			return nil, err
		}
		at += count
	}
	return out, nil
}
