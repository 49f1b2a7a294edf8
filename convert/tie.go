package convert

import (
	"bytes"
	"fmt"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
)

// tie makes tensor i a name for what tensor to holds.
func (p *Plan) tie(i, to int, how qins.Tie) {
	t := &p.Tensors[i]
	t.Action, t.TiedTo, t.Tie = qins.Tied, p.Tensors[to].Name, how
}

// tieByOffset ties names with the same data offsets, whatever their shapes and
// dtypes. The first one in the header holds the data.
func (p *Plan) tieByOffset() {
	type place struct{ offset, size int64 }
	first := make(map[place]int, len(p.Tensors))
	for i := range p.Tensors {
		t := &p.Tensors[i]
		at := place{t.at.Offset, t.at.Size}
		if at.size == 0 {
			continue
		}
		if to, ok := first[at]; ok {
			p.tie(i, to, qins.TieOffset)
			t.SourceBytes = 0
			continue
		}
		first[at] = i
	}
}

// tieByMetadata adds the names that safetensors' save_model dropped and
// recorded as "dropped: kept".
func (p *Plan) tieByMetadata(metadata []format.Entry) {
	index := make(map[string]int, len(p.Tensors))
	for i := range p.Tensors {
		index[p.Tensors[i].Name] = i
	}
	for _, e := range metadata {
		to, kept := index[e.Value]
		_, there := index[e.Key]
		if !kept || there || e.Key == "format" {
			continue
		}
		t := p.Tensors[to]
		dropped := PlannedTensor{Tensor: qins.Tensor{Name: e.Key, DType: t.DType, Shape: t.Shape}, at: t.at}
		p.Tensors = append(p.Tensors, dropped)
		p.tie(len(p.Tensors)-1, p.root(to, index), qins.TieMetadata)
	}
}

// root returns the tensor that holds the data of tensor i.
func (p *Plan) root(i int, index map[string]int) int {
	if p.Tensors[i].Action == qins.Tied {
		return index[p.Tensors[i].TiedTo]
	}
	return i
}

// kind is what two tensors with the same content have in common.
type kind struct {
	dtype format.DType
	shape string
}

// repeatedKinds returns for each tensor whether another one with data of its
// own is of the same dtype and shape.
func (p *Plan) repeatedKinds() []bool {
	count := map[kind]int{}
	for i := range p.Tensors {
		if t := &p.Tensors[i]; t.Action != qins.Tied && t.at.Size > 0 {
			count[kind{t.DType, t.Shape.String()}]++
		}
	}
	repeated := make([]bool, len(p.Tensors))
	for i := range p.Tensors {
		t := &p.Tensors[i]
		repeated[i] = t.Action != qins.Tied && count[kind{t.DType, t.Shape.String()}] > 1
	}
	return repeated
}

// tieByContent ties tensors of the same dtype and shape whose bytes are the
// same. Equal hashes only suggest it; the bytes decide.
func (p *Plan) tieByContent(scans []scan) error {
	type content struct {
		kind
		hash uint64
	}
	first := map[content][]int{}
	followers := map[string][]int{} // of tensors that have names tied to them
	for i := range p.Tensors {
		if to := p.Tensors[i].TiedTo; to != "" {
			followers[to] = append(followers[to], i)
		}
	}
	for i := range p.Tensors {
		t := &p.Tensors[i]
		if !scans[i].hashed {
			continue
		}
		key := content{kind{t.DType, t.Shape.String()}, scans[i].hash}
		tied := false
		for _, to := range first[key] {
			same, err := p.sameBytes(t.at, p.Tensors[to].at)
			if err != nil {
				return err
			}
			if same {
				if t.Action == qins.Encoded {
					t.Rule = "" // it does not stand in the way of encoding
				}
				p.tie(i, to, qins.TieContent)
				for _, f := range followers[t.Name] {
					p.Tensors[f].TiedTo = p.Tensors[to].Name
				}
				tied = true
				break
			}
		}
		if !tied {
			first[key] = append(first[key], i)
		}
	}
	return nil
}

func (p *Plan) sameBytes(a, b format.Tensor) (bool, error) {
	const step = 1 << 20
	x, y := make([]byte, min(step, a.Size)), make([]byte, min(step, a.Size))
	for at := int64(0); at < a.Size; at += step {
		n := min(step, a.Size-at)
		if err := format.ReadFull(p.src, x[:n], a.Offset+at); err != nil {
			return false, err
		}
		if err := format.ReadFull(p.src, y[:n], b.Offset+at); err != nil {
			return false, err
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return false, nil
		}
	}
	return true, nil
}

// keepTied keeps each tensor under one of whose names a rule keeps it, and
// those that are also read as another dtype.
func (p *Plan) keepTied() {
	index := make(map[string]int, len(p.Tensors))
	for i := range p.Tensors {
		index[p.Tensors[i].Name] = i
	}
	for i := range p.Tensors {
		t := &p.Tensors[i]
		if t.Action != qins.Tied {
			continue
		}
		to := &p.Tensors[index[t.TiedTo]]
		if to.Action != qins.Encoded {
			t.Rule = ""
			continue
		}
		switch {
		case t.Rule != "":
			to.Action, to.Rule = qins.Kept, fmt.Sprintf("tied to %s, kept by %s", format.Quote(t.Name), t.Rule)
		case t.DType != to.DType:
			to.Action, to.Rule = qins.Kept, fmt.Sprintf("tied to %s of dtype %s", format.Quote(t.Name), t.DType)
		}
	}
}
