package convert

// A modelConfig is what the plan wants to know of a model's config.json.
type modelConfig struct {
	vocabSize uint64 // 0 where it is not known
}
