package convert

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/qinsconv/qinsconv/format"
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
	p.free()
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

// A slowReader takes its time.
type slowReader struct{ format.Source }

// ReadAt implements io.ReaderAt.
func (slowReader) ReadAt(p []byte, off int64) (int, error) {
	time.Sleep(3 * time.Millisecond)
	return copy(p, "data"[off:]), io.EOF
}

func TestTimedSource(t *testing.T) {
	s := &timedSource{Source: slowReader{}}
	p := make([]byte, 8)
	if n, err := s.ReadAt(p, 1); string(p[:n]) != "ata" || err != io.EOF {
		t.Errorf("read %q, %v", p[:n], err)
	}
	if s.ReadAt(p, 0); s.spent.Load() < int64(6*time.Millisecond) {
		t.Errorf("reading took %v", time.Duration(s.spent.Load()))
	}
	s.spent.Store(int64(6 * time.Second))
	if !s.isSlow(10*time.Second, 1) {
		t.Error("6 of 10 seconds of a worker are not most of its time")
	}
	if s.isSlow(10*time.Second, 2) {
		t.Error("6 of 20 seconds of two workers are most of their time")
	}
}
