package convert

import (
	"sync/atomic"
	"testing"
	"time"
)

// TestLimit has many goroutines do something that only two may do at a time.
func TestLimit(t *testing.T) {
	l := make(limit, 2)
	var now, most atomic.Int64
	done := make(chan bool)
	for range 8 {
		go func() {
			for range 100 {
				l.begin()
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				time.Sleep(10 * time.Microsecond)
				now.Add(-1)
				l.end()
			}
			done <- true
		}()
	}
	for range 8 {
		<-done
	}
	if most.Load() != 2 {
		t.Errorf("up to %d at a time, expected 2", most.Load())
	}
}
