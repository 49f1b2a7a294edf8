package convert

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	p := newPace()
	ctx, cancel := context.WithCancel(t.Context())
	var at atomic.Int64
	done := make(chan error)
	go func() {
		for {
			if err := p.wait(ctx, at.Load()); err != nil {
				done <- err
				return
			}
			at.Add(10)
		}
	}()
	reaches := func(want int64) {
		t.Helper()
		for range 1000 {
			if at.Load() == want {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatalf("the hash is at %d, expected %d", at.Load(), want)
	}
	reaches(0)
	p.converted(100, 30)
	reaches(70)
	p.converted(150, 90) // which takes nothing back
	reaches(70)
	p.converted(200, 95)
	reaches(110)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	p.finished()
	if err := p.wait(t.Context(), 1<<62); err != nil {
		t.Error(err)
	}
}

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
