package convert

// A limit is the number of processors that a job keeps busy at a time, whatever
// they do: reading, encoding, hashing, writing.
type limit chan struct{}

// begin waits for a processor, end gives it back.
func (l limit) begin() { l <- struct{}{} }
func (l limit) end()   { <-l }
