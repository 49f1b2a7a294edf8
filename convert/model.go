package convert

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/format/safetensors"
)

// Endings of the names of files that have a part in a model.
const (
	safetensorsExt = ".safetensors"
	ggufExt        = ".gguf"
	qinsExt        = ".qins"
	indexSuffix    = ".safetensors.index.json"
	qinsIndex      = ".qins.index.json"
	configName     = "config.json"
)

// What the names of weights begin with that hold a whole model: as its maker
// wrote them, and as a library that loads it does.
const (
	consolidatedStem = "consolidated"
	modelStem        = "model"
)

// DirManifestName is the name of the manifest of a converted folder.
const DirManifestName = "qins-manifest.json"

// A model is a folder with weights and what belongs to them.
type model struct {
	root string
	sets []*weightSet
	side []folderFile // what is carried over, indices and configurations included
	left []folderFile // weights that were not chosen

	indices []folderIndex
	indexed map[string]bool // files that an index names
}

// A folderIndex is an index and its place in a model.
type folderIndex struct {
	*safetensors.Index
	name string // slash-separated, below the root
}

// A weightSet are the files of one folder that hold the tensors of one model.
type weightSet struct {
	folder  string       // slash-separated, below the root
	files   []folderFile // sorted
	indices []*safetensors.Index
	config  modelConfig
	unread  error // why the configuration says nothing; nil where it does
	gguf    bool
}

// numbered matches the names of files that are one of several. Most have five
// digits, or as many as the number of files needs.
var numbered = regexp.MustCompile(`^(.*)-(\d{5,})-of-(\d{5,})$`)

// A fileSet is what the names of several files have in common.
type fileSet struct{ of, count, ext string } // with count's digits as they stand

// A filePart is a file's place in a set.
type filePart struct {
	fileSet
	number, count int64 // from 1; how many there are
	digits        int   // of the number
}

// part returns what a file's name says of its place among several. ok is false
// where it is one by itself.
func part(name string) (p filePart, ok bool) {
	ext := path.Ext(name)
	m := numbered.FindStringSubmatch(strings.TrimSuffix(name, ext))
	if m == nil {
		return filePart{}, false
	}
	p = filePart{fileSet: fileSet{m[1], m[3], ext}, digits: len(m[2])}
	var err error
	if p.number, err = strconv.ParseInt(m[2], 10, 64); err == nil {
		p.count, err = strconv.ParseInt(m[3], 10, 64)
	}
	return p, err == nil
}

// name is the name of file i of the set.
func (p filePart) name(i int64) string {
	return fmt.Sprintf("%s-%0*d-of-%s%s", p.of, p.digits, i, p.fileSet.count, p.ext)
}

// names lists the files of the set that are in a folder, up to the first that is
// missing, whose name is the last.
func (p filePart) names(folder string) []string {
	var names []string
	for i := int64(1); i <= p.count; i++ {
		names = append(names, p.name(i))
		if _, err := os.Stat(filepath.Join(folder, p.name(i))); err != nil {
			break
		}
	}
	return names
}

// isWeights reports whether the name is that of a file that can be converted.
func isWeights(name string) bool {
	ext := path.Ext(name)
	return ext == safetensorsExt || ext == ggufExt
}

// outputName is the name of the .qins file made of a file of weights.
func outputName(name string) string {
	if isWeights(name) {
		name = strings.TrimSuffix(name, path.Ext(name))
	}
	return name + qinsExt
}

// readModel lists the files of a model in a folder and finds out which belong
// together. The patterns choose among the weights; all are taken where there is
// no pattern.
func readModel(ctx context.Context, root string, patterns []string) (*model, error) {
	m := &model{root: root, indexed: map[string]bool{}}
	walk, err := listFolders(ctx, root, func(name string) error {
		if isHubCache(m.path(name)) {
			return hubCacheError(m.path(name))
		}
		if isWeights(name) || strings.HasSuffix(name, indexSuffix) {
			return &format.Error{File: m.path(name), Problem: "this is a folder, expected a file"}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := m.readIndices(walk.files); err != nil {
		return nil, err
	}
	var weights []folderFile
	for _, f := range walk.files {
		if !format.IsLocal(f.name) {
			return nil, &format.Error{File: m.path(f.name), Problem: "a manifest could not hold this name, which is no path on every system", Found: format.Quote(f.name)}
		}
		base := path.Base(f.name)
		switch {
		case isTemp(base): // what a killed run of this program left there
		case isWeights(f.name) || m.indexed[f.name]: // which may have any name
			chosen, err := matches(base, patterns)
			if err != nil {
				return nil, err
			}
			if chosen {
				weights = append(weights, f)
			} else {
				m.left = append(m.left, f)
			}
		case base == DirManifestName || strings.HasSuffix(base, qinsIndex) || path.Ext(base) == qinsExt:
			return nil, &format.Error{File: m.path(f.name), Problem: "the folder holds a converted model already", Hint: "qinsconv decode turns it back"}
		default:
			m.side = append(m.side, f)
		}
	}
	if len(weights) == 0 {
		hint := ""
		if len(m.left) > 0 {
			hint = "--weights chooses none of " + m.left[0].name
		}
		return nil, &format.Error{File: root, Problem: "there are no weights", Expected: "a folder with .safetensors or .gguf files", Hint: hint}
	}
	if err := m.group(weights); err != nil {
		return nil, err
	}
	return m, m.checkOutputs()
}

// readIndices reads the indices among the files.
func (m *model) readIndices(files []folderFile) error {
	for _, f := range files {
		if !strings.HasSuffix(f.name, indexSuffix) {
			continue
		}
		x, err := safetensors.ReadIndex(m.path(f.name))
		if err != nil {
			return err
		}
		m.indices = append(m.indices, folderIndex{x, f.name})
		for _, file := range x.Files() {
			m.indexed[sibling(f.name, file)] = true
		}
	}
	return nil
}

// matches reports whether one of the patterns matches a file's name.
func matches(base string, patterns []string) (bool, error) {
	for _, p := range patterns {
		ok, err := path.Match(p, base)
		if err != nil {
			return false, &OptionError{fmt.Errorf("--weights %s: %w", format.Quote(p), err)}
		}
		if ok {
			return true, nil
		}
	}
	return len(patterns) == 0, nil
}

func (m *model) path(name string) string { return filepath.Join(m.root, filepath.FromSlash(name)) }

// group makes sets of the weights: of safetensors files all of a folder, and
// those of other folders that its index names; of GGUF files those that were
// split from one.
func (m *model) group(weights []folderFile) error {
	files := make(map[string]folderFile, len(weights))
	for _, f := range weights {
		files[f.name] = f
	}
	taken := map[string]*weightSet{}
	sets := map[string]*weightSet{}
	set := func(folder, key string) *weightSet {
		if sets[key] == nil {
			sets[key] = &weightSet{folder: folder, gguf: key != folder}
			m.sets = append(m.sets, sets[key])
		}
		return sets[key]
	}
	for _, x := range m.indices {
		if err := m.index(x, files, taken, set); err != nil {
			return err
		}
	}
	for _, f := range weights {
		folder := path.Dir(f.name)
		key := folder
		if path.Ext(f.name) == ggufExt {
			key = strings.TrimSuffix(f.name, ggufExt)
			if p, ok := part(f.name); ok {
				key = p.of + " of " + p.fileSet.count
			}
			key += ggufExt
		} else if s := taken[f.name]; s != nil {
			s.files = append(s.files, f)
			continue
		}
		s := set(folder, key)
		s.files = append(s.files, f)
	}
	for _, s := range m.sets {
		if err := m.checkSet(s); err != nil {
			return err
		}
	}
	return m.readConfigs()
}

// index adds an index to the set of its folder, and to that the files that the
// index names.
func (m *model) index(x folderIndex, files map[string]folderFile, taken map[string]*weightSet, set func(folder, key string) *weightSet) error {
	folder := path.Dir(x.name)
	var missing, unchosen []string
	for _, name := range x.Files() {
		full := path.Join(folder, name)
		if _, ok := files[full]; ok {
			continue
		}
		if slices.ContainsFunc(m.left, func(f folderFile) bool { return f.name == full }) {
			unchosen = append(unchosen, name)
		} else {
			missing = append(missing, name)
		}
	}
	switch {
	case len(missing) > 0:
		return &format.Error{File: x.Name, Problem: "a file that the index names is missing", Found: "no " + strings.Join(missing, ", "),
			Expected: fmt.Sprintf("%d files", len(x.Files())), Hint: "is the download complete?"}
	case len(unchosen) == len(x.Files()) && len(unchosen) > 0:
		return nil // an index of weights that were not chosen
	case len(unchosen) > 0:
		return &format.Error{File: x.Name, Problem: "--weights chooses only some of the files that the index names", Found: "not " + strings.Join(unchosen, ", ")}
	}
	s := set(folder, folder)
	s.indices = append(s.indices, x.Index)
	for _, name := range x.Files() {
		full := path.Join(folder, name)
		if other := taken[full]; other != nil && other != s {
			return &format.Error{File: x.Name, Problem: "the index of another folder names this file too", Found: format.Quote(full)}
		}
		taken[full] = s
	}
	return nil
}

// checkSet checks that the files are there and belong together.
func (m *model) checkSet(s *weightSet) error {
	slices.SortFunc(s.files, func(a, b folderFile) int { return strings.Compare(a.name, b.name) })
	names := make([]string, len(s.files))
	for i, f := range s.files {
		names[i] = path.Base(f.name)
	}
	if err := twice(m.path(s.folder), names); err != nil {
		return err
	}
	if len(s.indices) > 0 {
		return nil // it says which files there are
	}
	found := map[fileSet]map[int64]string{} // by their numbers
	for _, f := range s.files {
		p, ok := part(f.name)
		if !ok {
			continue
		}
		if found[p.fileSet] == nil {
			found[p.fileSet] = map[int64]string{}
		}
		if other, taken := found[p.fileSet][p.number]; taken {
			return &format.Error{File: m.path(f.name), Problem: "another file has the same number", Found: format.Quote(other)}
		}
		found[p.fileSet][p.number] = f.name
	}
	for _, f := range s.files {
		p, ok := part(f.name)
		numbers := found[p.fileSet]
		if !ok || int64(len(numbers)) == p.count && 1 <= p.number && p.number <= p.count {
			continue
		}
		for i := int64(1); i <= p.count; i++ {
			if numbers[i] == "" {
				return &format.Error{File: m.path(p.name(i)), Problem: "a file of the model is missing", Found: fmt.Sprintf("%d of %d", len(numbers), p.count),
					Hint: "is the download complete?"}
			}
		}
		return &format.Error{File: m.path(f.name), Problem: "the file's number is not one of its set", Found: fmt.Sprint(p.number), Expected: fmt.Sprintf("1 to %d", p.count)}
	}
	return nil
}

// twice returns an error where some of the names are of consolidated weights and
// others are not.
func twice(folder string, names []string) error {
	consolidated, other := "", ""
	for _, name := range names {
		if strings.HasPrefix(name, consolidatedStem) {
			consolidated = name
		} else {
			other = name
		}
	}
	if consolidated == "" || other == "" {
		return nil
	}
	return &format.Error{File: folder, Problem: "the folder holds the same model twice, it seems",
		Found: consolidated + " beside " + other, Hint: fmt.Sprintf("choose with --weights '%s*' or --weights '%s'", consolidatedStem, globOf(other))}
}

// globOf is a pattern for the files that a file is one of: of a variant as
// model.fp16.safetensors is, those of other folders too.
func globOf(base string) string {
	p, numbered := part(base)
	stem := strings.TrimSuffix(base, path.Ext(base))
	if numbered {
		stem = p.of
	}
	variant := path.Ext(stem)
	switch {
	case variant != "" && variant != stem && numbered:
		return "*" + variant + "-*-of-*" + p.ext
	case variant != "" && variant != stem:
		return "*" + variant + path.Ext(base)
	case numbered:
		return stem + "-*" + p.ext
	}
	return base
}

// readConfigs reads the configurations, and gives each set of safetensors files
// the one beside it.
func (m *model) readConfigs() error {
	for _, f := range m.side {
		if path.Base(f.name) != configName {
			continue
		}
		text, err := readConfigText(m.path(f.name))
		if err != nil {
			return err
		}
		c, err := parseConfig(text)
		if c.quantMethod == quantMethod {
			// Decoding would take it for one that this program added.
			return &format.Error{File: m.path(f.name), Problem: "the configuration says that the weights are converted already, and they are not",
				Found: quantizationKey + " with the quant_method " + format.Quote(quantMethod), Hint: "remove that member, which a converted model has left there, it seems"}
		}
		for _, s := range m.sets {
			if !s.gguf && f.name == path.Join(s.folder, configName) {
				s.config, s.unread = c, inFile(err, m.path(f.name)) // the weights can be converted without it
			}
		}
	}
	return nil
}

// readConfigText reads a configuration, which is not long.
func readConfigText(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > safetensors.MaxHeader {
		return nil, &format.Error{File: path, Problem: "too long for a configuration", Found: fmt.Sprintf("%d bytes", info.Size())}
	}
	return os.ReadFile(path)
}

// warnings tells of what a user should know about the files.
func (m *model) warnings() []Warning {
	var list []Warning
	for _, f := range m.left {
		list = append(list, Warning{Message: m.path(f.name) + " is left out, as --weights does not choose it"})
	}
	for _, s := range m.sets {
		if s.unread != nil {
			list = append(list, Warning{Message: fmt.Sprintf("%v: it is carried over as it is, and not gone by", s.unread)})
		}
	}
	for _, f := range m.side {
		if slices.Contains(otherWeights, path.Ext(f.name)) && f.size >= 1<<20 {
			list = append(list, Warning{Message: fmt.Sprintf("%s (%d bytes) is carried over as it is: it holds weights in another format, it seems", m.path(f.name), f.size)})
		}
	}
	return list
}

// otherWeights are endings of files with weights that are not converted.
var otherWeights = []string{".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".ot"}

// checkOutputs checks that no two files become one.
func (m *model) checkOutputs() error {
	from := map[string]string{}
	for _, s := range m.sets {
		for _, f := range s.files {
			out := outputName(f.name)
			if other, ok := from[out]; ok {
				return &format.Error{File: m.path(f.name), Problem: "two files would both become " + format.Quote(out), Found: other, Hint: "choose one of them with --weights GLOB"}
			}
			from[out] = f.name
		}
	}
	return nil
}

// isSplit reports whether a file is the first of a split GGUF file.
func isSplit(name string) bool {
	p, ok := part(name)
	return ok && p.ext == ggufExt && p.number == 1 && p.count > 1
}

// readSplit finds the files of a split GGUF file, of which first is one.
func readSplit(first string) (*model, error) {
	folder, base := filepath.Split(first)
	if folder == "" {
		folder = "."
	}
	p, ok := part(base)
	if !ok || p.ext != ggufExt {
		return nil, fmt.Errorf("%s: is neither a folder nor a part of a split GGUF file", first)
	}
	return readFiles(folder, p.names(folder))
}

// readFiles makes a model of files of a folder that belong together and have
// nothing beside them.
func readFiles(folder string, names []string) (*model, error) {
	m := &model{root: folder}
	s := &weightSet{folder: ".", gguf: path.Ext(names[0]) == ggufExt}
	for _, name := range names {
		if err := utf8Name(m.path(name), name); err != nil {
			return nil, err
		}
		info, err := os.Stat(m.path(name))
		if err != nil {
			if os.IsNotExist(err) {
				return nil, &format.Error{File: m.path(name), Problem: "a file of the model is missing", Hint: "is the download complete?"}
			}
			return nil, err
		}
		s.files = append(s.files, folderFile{name, info.Size()})
	}
	m.sets = []*weightSet{s}
	if err := m.checkSet(s); err != nil {
		return nil, err
	}
	return m, m.checkOutputs()
}
