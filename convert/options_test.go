package convert

import "testing"

func TestJobsAreBounded(t *testing.T) {
	for given, want := range map[int]int{1: 1, 255: 255, 256: 256, 257: 256, 20000: 256} {
		if o, err := (Options{Jobs: given}).normalize(); err != nil || o.Jobs != want || cap(o.limit) != want {
			t.Errorf("%d jobs became %d, %d at a time, expected %d (%v)", given, o.Jobs, cap(o.limit), want, err)
		}
	}
}
