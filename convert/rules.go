package convert

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/qinsconv/qinsconv/format"
	"github.com/qinsconv/qinsconv/qins"
)

// A Rule decides about the tensors whose full name a regular expression
// matches.
type Rule struct {
	Include bool
	Pattern *regexp.Regexp
}

// NewRule compiles a rule. The expression is Go's (RE2) and may match any part
// of the name.
func NewRule(include bool, pattern string) (Rule, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return Rule{}, &OptionError{err}
	}
	return Rule{include, re}, nil
}

// String returns "include RE" or "exclude RE".
func (r Rule) String() string {
	if r.Include {
		return "include " + r.Pattern.String()
	}
	return "exclude " + r.Pattern.String()
}

// minElements is the size from which encoding a tensor is worth it.
const minElements = 1024

// keepers are the default rules by which tensors are kept although they look
// like weights. They have little weight in the file and much in the result, or
// their values are not of the kind that the codec is for.
var keepers = []keeper{
	keep("relative positions", `(?i)relative_|rel_pos|attn_rel_b|attn\.pos_[hw]\.`, "relative_", "rel_pos", "attn_rel_b", "attn.pos_"),
	// A text encoder may have a name with "embed" in it, many components before
	// that of its weights.
	keep("embedding or head", `(?i)emb(ed|d)[^.]*(\.[^.]*){0,3}$|(^|[._])emb\.weight$|(^|[._])position|(^|\.)(wte|wpe)(\.|$)|(^|\.)shared\.weight$|^token_types\.weight$`+
		`|lm_head|shared_head[._]head\.weight$|^head\.weight$|(^|language_model\.)output\.weight$|^(transformer\.)?output_layer\.weight$`,
		"emb", "position", "wte", "wpe", "shared", "token_types", "head", "output"),
	// What modulates a norm is a linear layer below it: norm1.linear.weight.
	keep("norm", `(?i)(norm|(^|[._])ln([._\d]|$))[^.]*(\.\d+)?(\.(weight|scale|shift|gamma|beta))*$`, "norm", "ln"),
	keep("router or expert gate", `(?i)router|(^|[._])((mlp|moe|moe_block|mixer|ffn|feed_forward)|layers\.\d+)\.gate(\.wg)?\.weight$|gate_inp|shared_expert_gate`, "router", "gate"),
	// Of time_mix_* the small ones: time_mix_key and the like are linear.
	keep("state space or convolution", `(?i)conv1d[^.]*(\.\d+)?(\.weight)?$|shortconv\.conv\.|(^|[._])A_log|dt_proj|(^|\.)ssm_(a|d|dt)(\.|$)|time_mix_(first|lerp|decay|ln|[a-z]\d|[kr]_[ak])`,
		"conv1d", "shortconv", "a_log", "dt_proj", "ssm_", "time_mix_"),
	keep("patch embedding", `(?i)patch_(embed|embd|conv)`, "patch_"),
	keep("companion of a quantized weight", `(^|\.)(qweight|qzeros|scales|weight[_:]scales?(_inv|_2|_and_zero)?|weight_zero_point|weight_integer|g_idx)$`,
		"qweight", "qzeros", "scale", "zero_point", "weight_integer", "g_idx"),
}

// A keeper keeps the tensors whose names its pattern matches.
type keeper struct {
	reason  string
	pattern *regexp.Regexp
	// Each name that the pattern matches has one of these in it, in lower case.
	// Looking for them first is what makes a plan of 100,000 names quick.
	words []string
}

func keep(reason, pattern string, words ...string) keeper {
	return keeper{reason, regexp.MustCompile(pattern), words}
}

// keeps reports whether the pattern matches a name, which is also given in
// lower case.
func (k *keeper) keeps(name, lower string) bool {
	for _, w := range k.words {
		if strings.Contains(lower, w) {
			return k.pattern.MatchString(name)
		}
	}
	return false
}

// weightName matches the last component of the names of linear weights.
var weightName = regexp.MustCompile(`^(weight.*|kernel|in_proj_weight|.*_proj|lora_[AB])$`)

// decide says whether a tensor may be encoded, and by which rule.
func decide(t format.Tensor, config modelConfig, rules []Rule) (encode bool, rule string) {
	float := qins.Encodable(t.DType)
	for _, r := range rules {
		if !r.Pattern.MatchString(t.Name) {
			continue
		}
		switch {
		case r.Include && !float:
			return false, fmt.Sprintf("%s, but %s cannot be encoded", r, t.DType)
		case r.Include && t.Size == 0:
			return false, fmt.Sprintf("%s, but it is empty", r)
		}
		return r.Include, r.String()
	}
	if !float {
		return false, "default: dtype " + t.DType.String()
	}
	if len(t.Shape) != 2 {
		return false, fmt.Sprintf("default: %d-D", len(t.Shape))
	}
	lower := strings.ToLower(t.Name)
	for i := range keepers {
		if k := &keepers[i]; k.keeps(t.Name, lower) {
			return false, "default: " + k.reason
		}
	}
	if config.vocabSize > 0 && t.Shape[0] == config.vocabSize {
		return false, "default: vocab_size rows"
	}
	last := t.Name[strings.LastIndexByte(t.Name, '.')+1:]
	if !weightName.MatchString(last) {
		return false, "default: not named as a weight"
	}
	if t.Elements() < minElements {
		return false, fmt.Sprintf("default: under %d elements", minElements)
	}
	return true, "default: 2-D weight"
}
