package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"centralka/desk"
	"centralka/ordinance"
	"centralka/pbx"
	"centralka/store"
	"centralka/web"
)

// certificateNotice is how long before its end a certificate is an alarm.
const certificateNotice = 14 * 24 * time.Hour

// Bounds below which the vault's room is an alarm.
const (
	lowDaysLeft  = 14
	lowFreeRatio = 0.05
)

// incidentsShown is how many incidents the status page lists.
const (
	incidentsShown = 20
)

// slowFacts are what takes a look at the disk; they are asked for seldom.
type slowFacts struct {
	disk       store.DiskUsage
	incidents  int
	latest     []web.Incident // newest first
	verify     verifyFacts
	reconciled store.Reconciliation
	err        error
}

// verifyFacts sum up the newest integrity checks of all days.
type verifyFacts struct {
	at           time.Time
	checked, bad int
}

// watch refreshes the slow facts until done is closed.
func (s *system) watch(done <-chan struct{}) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		var f slowFacts
		f.disk, f.err = s.store.Disk()
		today := ordinance.DayOf(time.Now())
		for rec, err := range s.store.Incidents(today.Next(-6), today) {
			if err != nil {
				f.err = err
				break
			}
			f.incidents++
			f.latest = append(f.latest, web.Incident{
				At: rec.Began, Call: rec.ID.String()[:8], Direction: string(rec.Direction), Outcome: string(rec.Recording.Outcome), Reason: rec.Recording.Reason,
			})
			if len(f.latest) > incidentsShown {
				f.latest = f.latest[1:]
			}
		}
		slices.Reverse(f.latest)
		checks, err := s.store.Integrity()
		if err != nil {
			f.err = err
		}
		for _, c := range checks {
			f.verify.checked += c.Recordings
			f.verify.bad += len(c.Findings)
			if c.Checked.After(f.verify.at) {
				f.verify.at = c.Checked
			}
		}
		if f.reconciled, err = s.store.Reconciled(); err != nil {
			f.err = err
		}
		s.slow.Store(&f)
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}

// snapshot takes the picture that the status page shows.
func (s *system) snapshot() web.Snapshot {
	sw, rec := s.sw.Status(), s.recorder.Status()
	sweep := s.store.LastSweep()
	slow := s.slow.Load()
	if slow == nil {
		slow = &slowFacts{disk: store.DiskUsage{DaysLeft: -1}}
	}
	out := web.Snapshot{
		At: time.Now(), Started: s.began, NotReady: sw.NotReady, Draining: sw.Draining, Guard: sw.Guard, Panics: sw.Panics,
		Began: map[string]int64{}, Ended: map[string]int64{},
		Announced: web.Announced(sw.Announcement),
		Recorder: web.Recorder{
			Active: rec.Active, Rendering: rec.Rendering, Outcomes: map[string]uint64{}, Recovered: rec.Recovered,
			Dropped: map[string]uint64{"ring": rec.Overflowed, "disk": rec.Unwritten}, Err: rec.LastError, ErrAt: rec.LastFailed, Incidents: slow.incidents, Latest: slow.latest,
		},
		Vault: web.Vault{
			Free: int64(slow.disk.Free), Total: int64(slow.disk.Total), DaysLeft: slow.disk.DaysLeft,
			NextSweep: s.store.NextSweep(), LastSweep: sweep.Ended, SweepErr: sweep.Err, SweptDays: len(sweep.Days), Unexplained: slow.reconciled.Unexplained(), Reconciled: slow.reconciled.At, SweepHeld: sweep.Held,
			LastVerified: slow.verify.at, Verified: slow.verify.checked, Mismatches: slow.verify.bad,
		},
		Media: web.Media{
			Engine: sw.Engine.Kind, Streams: sw.Engine.Streams, Ports: sw.Engine.Ports, Draining: sw.Engine.Draining,
			Received: sw.Engine.Received, Sent: sw.Engine.Sent, Dropped: sw.Engine.Drops.ByCause(),
			Late: sw.Lateness.Mean, LateMax: sw.Lateness.Max, Heard: mosOf(sw.Heard), Told: mosOf(sw.Told),
		},
	}
	out.Certificate, out.Connections = sw.Certificate.Until, sw.Streams
	for d, n := range sw.Began {
		out.Began[string(d)] = n
	}
	for c, n := range sw.Causes {
		out.Ended[string(c)] = n
	}
	for o, n := range rec.Outcomes {
		out.Recorder.Outcomes[string(o)] = n
	}
	for _, c := range sw.Calls {
		voices := make([]web.Voice, 0, len(c.Voices))
		for _, v := range c.Voices {
			voices = append(voices, web.Voice(v))
		}
		out.Calls = append(out.Calls, web.Call{
			ID: c.ID.String()[:8], Direction: string(c.Direction), Phase: c.Phase, Began: c.Began, Since: c.Since,
			Trunk: c.Trunk, Queue: c.Queue, Extension: c.Extension, Recorded: c.Recorded, Held: c.Held, MOS: c.MOS,
			Voices: voices,
		})
	}
	for _, t := range sw.Trunks {
		out.Trunks = append(out.Trunks, web.Trunk(t))
	}
	for _, p := range sw.Phones {
		out.Phones = append(out.Phones, web.Phone{Extension: p.Extension, Devices: p.Devices, Calls: p.Calls})
	}
	for _, q := range sw.Queues {
		out.Queues = append(out.Queues, web.Queue(q))
	}
	for _, a := range s.pool.Snapshot() {
		out.Agents = append(out.Agents, agentStatus(a))
	}
	out.Alarms = alarms(out, sw, rec.Alarm, slow)
	return out
}

func mosOf(m pbx.MOSCounts) web.MOS {
	out := web.MOS{N: m.N, Sum: m.Sum, AtMost: map[float64]uint64{}}
	for i, bound := range pbx.MOSBounds {
		out.AtMost[bound] = m.AtMost[i]
	}
	return out
}

func agentStatus(a desk.AgentStatus) web.Agent {
	return web.Agent{Extension: string(a.ID), State: a.State.String(), Reason: a.Reason, Since: a.Since}
}

// alarms lists what an administrator must look at. Each id is a heading of
// docs/operations.md; a test holds the two together.
func alarms(s web.Snapshot, sw pbx.Status, recorder bool, slow *slowFacts) []web.Alarm {
	var out []web.Alarm
	raise := func(on bool, id, format string, args ...any) {
		if on {
			out = append(out, web.Alarm{ID: id, Text: fmt.Sprintf(format, args...)})
		}
	}
	raise(s.Announced.Err != "", "announcement-unusable", "Komunikat nie może być odtworzony: %s", s.Announced.Err)
	raise(s.Announced.TooShort, "announcement-too-short", "Nagranie komunikatu jest za krótkie na jego tekst")
	for _, r := range sw.NotReady {
		listener, down := strings.CutPrefix(r, "listener down: ")
		raise(down, "listener-down", "Gniazdo SIP nie działa: %s", listener)
	}
	raise(sw.Certificate.Err != "", "certificate", "Nowego certyfikatu SIP nie można użyć: %s", sw.Certificate.Err)
	if until := sw.Certificate.Until; !until.IsZero() {
		raise(!until.After(s.At), "certificate", "Certyfikat SIP wygasł")
		raise(until.After(s.At) && until.Sub(s.At) < certificateNotice, "certificate", "Certyfikat SIP wygasa za %d dni", int(until.Sub(s.At).Hours()/24))
	}
	raise(recorder, "recorder-failing", "Nagrywanie zawodzi: %s", s.Recorder.Err)
	if recorder {
		out[len(out)-1].Time = s.Recorder.ErrAt
	}
	for _, t := range s.Trunks {
		raise(!t.Up, "trunk-down", "Łącze %s nie odpowiada", t.Name)
	}
	raise(sw.TooLate, "overload", "Głos wychodzi z opóźnieniem średnio %d ms; nowe połączenia są odrzucane", s.Media.Late.Milliseconds())
	raise(slow.err != nil, "disk-unreadable", "Nie można odczytać stanu dysku: %v", slow.err)
	raise(slow.disk.DaysLeft >= 0 && slow.disk.DaysLeft < lowDaysLeft, "disk-low", "Miejsca na nagrania wystarczy na %d dni", slow.disk.DaysLeft)
	raise(slow.disk.Total > 0 && float64(slow.disk.Free) < lowFreeRatio*float64(slow.disk.Total), "disk-low", "Na dysku zostało mniej niż 5 %% miejsca")
	raise(s.Vault.SweepErr != "", "sweep-failed", "Usuwanie po upływie terminu nie powiodło się: %s", s.Vault.SweepErr)
	raise(s.Vault.SweepHeld != "", "sweep-held", "Usuwanie po upływie terminu wstrzymane, zegar budzi wątpliwości: %s", s.Vault.SweepHeld)
	raise(s.Vault.Unexplained > 0, "unexplained", "Rozbieżności między plikami a indeksem: %d (brakuje %d, osieroconych %d, obcych %d)",
		s.Vault.Unexplained, slow.reconciled.Missing, slow.reconciled.Orphans, len(slow.reconciled.Foreign))
	raise(slow.reconciled.Err != "", "disk-unreadable", "Uzgodnienie plików z indeksem nie powiodło się: %s", slow.reconciled.Err)
	raise(s.Vault.Mismatches > 0, "integrity", "Nagrania niezgodne z zapisem: %d", s.Vault.Mismatches)
	raise(s.Panics > 0, "internal-errors", "Połączenia zakończone błędem wewnętrznym: %d", s.Panics)
	return out
}
