package store

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"centralka/ordinance"
)

// BenchmarkPutCall stores one new record per operation on a real disk.
func BenchmarkPutCall(b *testing.B) {
	for _, writers := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			s := openTest(b, Config{Dir: filepath.Join(b.TempDir(), "vault")})
			defer closeTest(b, s)
			jobs := make(chan CallRecord)
			var wg sync.WaitGroup
			var mu sync.Mutex
			var took []time.Duration
			var failed atomic.Int64
			for range writers {
				wg.Go(func() {
					for rec := range jobs {
						began := time.Now()
						if s.PutCall(rec) != nil {
							failed.Add(1)
						}
						d := time.Since(began)
						mu.Lock()
						took = append(took, d)
						mu.Unlock()
					}
				})
			}
			i := 0
			for b.Loop() {
				i++
				rec := call(day1, time.Duration(i)*time.Second)
				rec.Caller.Number = ordinance.Number(fmt.Sprintf("+4891%07d", i%5000))
				rec.Segments = []Segment{{Extension: fmt.Sprint(20 + i%30), From: rec.Began}}
				jobs <- rec
			}
			close(jobs)
			wg.Wait()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
			if failed.Load() > 0 {
				b.Errorf("%d failed", failed.Load())
			}
		})
	}
}

// BenchmarkCallsByNumber looks up a number that called once a day on each of
// 180 days of 50 calls.
func BenchmarkCallsByNumber(b *testing.B) {
	s := openTest(b, Config{})
	defer closeTest(b, s)
	const days = 180
	for d := range days {
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				rec := call(day1.Next(-d), time.Duration(i)*time.Minute)
				rec.Caller.Number = ordinance.Number(fmt.Sprintf("+4891000%04d", i))
				if err := s.PutCall(rec); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	for b.Loop() {
		if n := len(collect(b, s.CallsByNumber("+48910000007", ordinance.Day{}, ordinance.Day{}))); n != days {
			b.Fatalf("%d calls", n)
		}
	}
}

// fillDay puts n recorded calls into a day.
func fillDay(b *testing.B, s *Store, day ordinance.Day, n int) {
	b.Helper()
	jobs := make(chan int)
	var wg sync.WaitGroup
	var failed atomic.Int64
	for range 64 {
		wg.Go(func() {
			for i := range jobs {
				rec := call(day, time.Duration(i)*time.Second)
				rec.Caller.Number = ordinance.Number(fmt.Sprintf("+4891%07d", i))
				f, err := s.PutFile(day, rec.ID, func(w io.Writer) error { _, err := w.Write(make([]byte, 4000)); return err })
				rec.Recording = Recording{Outcome: OutcomeOK, Size: f.Size, SHA256: f.SHA256}
				if err != nil || s.CommitRecording(rec) != nil {
					failed.Add(1)
				}
			}
		})
	}
	for i := range n {
		jobs <- i
	}
	close(jobs)
	wg.Wait()
	if failed.Load() > 0 {
		b.Fatalf("%d of %d failed", failed.Load(), n)
	}
}
