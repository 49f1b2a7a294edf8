package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/gguf"
	"github.com/qinsconv/qinsconv/format/safetensors"
	"github.com/qinsconv/qinsconv/qins"
)

// A shard is one file of a model on its way to a .qins file.
type shard struct {
	plan    *Plan
	in, out string // paths
	record  string // path of the manifest that says that it is finished
	inName  string // names that the manifest gives the files
	outName string
}

// size is that of the source, in bytes.
func (s *shard) size() int64 { return s.plan.SourceSize() }

// planSet opens the files of a set and decides about their tensors.
func planSet(ctx context.Context, m *model, s *weightSet, opts Options) ([]*Plan, error) {
	sources := make([]*source, len(s.files))
	outs := make([]string, len(s.files))
	group, _ := errgroup.WithContext(ctx)
	group.SetLimit(opts.Jobs)
	for i, f := range s.files {
		outs[i] = outputName(f.name)
		group.Go(func() error {
			src, err := openSource(m.path(f.name))
			if err != nil {
				return err
			}
			sources[i] = src
			return src.Close() // until it is read: a model may have many sets
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	plans, err := planFiles(ctx, sources, outs, s.config, opts)
	if err != nil {
		return nil, err
	}
	if err := s.checkIndices(plans); err != nil {
		return nil, err
	}
	return plans, s.checkSplit(sources)
}

// checkIndices checks that each tensor that an index lists is in the file that
// it names.
func (s *weightSet) checkIndices(plans []*Plan) error {
	if len(s.indices) == 0 {
		return nil
	}
	in := map[string]string{} // the file of each tensor
	for i, p := range plans {
		for j := range p.Tensors {
			if t := &p.Tensors[j]; t.Tie != qins.TieMetadata {
				in[t.Name] = s.below(s.files[i].name)
			}
		}
	}
	for _, x := range s.indices {
		for _, e := range x.Entries {
			found, ok := in[e.Key]
			switch {
			case !ok:
				return &format.Error{File: x.Name, Tensor: e.Key, Problem: "the index lists a tensor that no file holds", Expected: "in " + format.Quote(e.Value)}
			case found != e.Value:
				return &format.Error{File: x.Name, Tensor: e.Key, Problem: "the tensor is not in the file that the index names", Found: "in " + format.Quote(found), Expected: "in " + format.Quote(e.Value)}
			}
		}
	}
	return nil
}

// checkSplit checks that the files of a split GGUF file say the same as their
// names.
func (s *weightSet) checkSplit(sources []*source) error {
	for i, src := range sources {
		g, ok := src.Source.(*gguf.File)
		if !ok {
			continue
		}
		for _, want := range []struct {
			key   string
			value uint64
		}{{"split.count", uint64(len(sources))}, {"split.no", uint64(i)}} {
			v, ok := g.Lookup(want.key)
			if !ok {
				continue
			}
			if n, err := v.Uint(); err != nil || n != want.value && !(want.key == "split.count" && n == 0) {
				return &format.Error{File: src.Name(), Problem: want.key + " does not agree with the files that are there", Found: v.String(), Expected: fmt.Sprint(want.value)}
			}
		}
	}
	return nil
}

// below is a file's name as the set's folder has it.
func (s *weightSet) below(name string) string {
	if s.folder == "." {
		return name
	}
	return strings.TrimPrefix(name, s.folder+"/")
}

// An OptionsDifferError says that an output was made with other options.
type OptionsDifferError struct {
	Path         string
	Found, Given ManifestOptions
}

// Error implements error.
func (e *OptionsDifferError) Error() string {
	return fmt.Sprintf("%s: was converted with other options: found %s, expected %s (use --force to convert it again)", e.Path, e.Found, e.Given)
}

// String returns the options as a user gives them.
func (o ManifestOptions) String() string {
	parts := []string{"--layout " + string(o.Layout), "--codec " + o.Codec}
	for _, r := range o.Rules {
		parts = append(parts, "--"+r)
	}
	return strings.Join(parts, " ")
}

// recorded returns the manifest that an earlier run left when it had finished
// the shard, nil where there is none that can be believed.
func (s *shard) recorded() (*Manifest, error) {
	m, err := ReadManifest(s.record)
	var bad *format.Error
	if errors.Is(err, fs.ErrNotExist) || errors.As(err, &bad) {
		return nil, nil
	}
	return m, err
}

// finished reports whether the output is there that converting the shard would
// make, and that m describes. It reads all of it, so that a damaged one is
// found; with quick, sizes and times will do.
func (s *shard) finished(ctx context.Context, m *Manifest, quick bool) (bool, error) {
	if m.Tool != Tool || m.Source.Name != s.inName || m.Output.Name != s.outName || m.Source.Size != uint64(s.size()) {
		return false, nil
	}
	if given := s.plan.options(); m.Options.String() != given.String() {
		return false, &OptionsDifferError{s.out, m.Options, given}
	}
	if !s.plan.describedBy(m) {
		return false, nil
	}
	info, err := os.Lstat(s.out)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	// The output has the time of its source. Another time does not say that the
	// source is another: it may have been copied, or touched.
	sameTime := info.ModTime().Equal(s.plan.src.modTime())
	if quick && sameTime {
		return uint64(info.Size()) == m.Output.Size, nil
	}
	if !sameTime {
		defer s.plan.src.Close()
		sum, err := hashFile(ctx, s.plan.src, s.size(), s.in)
		if err != nil || sum != m.Source.SHA256 {
			return false, err
		}
	}
	return holds(ctx, s.out, SideFile{Size: m.Output.Size, SHA256: m.Output.SHA256})
}

// describedBy reports whether a manifest decides about the tensors as the plan
// does. The plan does not know yet which the codec refuses.
func (p *Plan) describedBy(m *Manifest) bool {
	return slices.EqualFunc(p.Tensors, m.Tensors, func(t PlannedTensor, mt ManifestTensor) bool {
		if t.Name != mt.Name || t.DType != mt.DType || t.Shape.String() != mt.Shape.String() ||
			t.TiedTo != mt.TiedTo || t.TiedIn != mt.TiedIn || t.Tie != mt.Tie {
			return false
		}
		if mt.Refused() {
			return t.Action == qins.Encoded && strings.HasSuffix(mt.Rule, "("+t.Rule+")")
		}
		return t.Action == mt.Action && t.rule() == mt.Rule
	})
}

// convert converts the shard, whatever is there.
func (s *shard) convert(ctx context.Context, opts Options) (*Manifest, error) {
	defer s.plan.src.Close()
	if err := differentFiles(s.in, s.out, tempName(s.out)); err != nil {
		return nil, err
	}
	file, record, err := createBoth(s.out, s.record, true, s.plan.src.file.info.Mode())
	if err != nil {
		return nil, err
	}
	defer file.discard()
	defer record.discard()
	opts.Events(Start{In: s.in, Out: s.out, Size: s.size(), Tensors: len(s.plan.src.Tensors())})
	return s.plan.convert(ctx, file, record, s.inName, s.outName, opts)
}

// isOurs reports whether what is in the place of an output without a folder of
// its own is nothing, or what an earlier run made of the same file, damaged
// perhaps: its manifest says so, or waits to be given its name.
func (s *shard) isOurs() bool {
	if _, err := os.Lstat(s.out); errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if !beginsAsQINS(s.out) {
		return false
	}
	m, err := s.recorded()
	if m != nil {
		return m.Source.Name == s.inName && m.Output.Name == s.outName
	}
	if err != nil {
		return false
	}
	for _, name := range []string{s.record, tempName(s.record)} {
		if _, err := os.Lstat(name); err == nil {
			return true
		}
	}
	return false
}

// beginsAsQINS reports whether a file begins as .qins files do.
func beginsAsQINS(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	const begin = `{"__metadata__":{`
	text := make([]byte, len(begin))
	_, err = f.ReadAt(text, safetensors.PrefixSize)
	return err == nil && string(text) == begin
}

// sibling is the name of a file in the folder of another, both slash-separated.
func sibling(name, base string) string { return path.Join(path.Dir(name), base) }
