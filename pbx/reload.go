package pbx

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"centralka/desk"
)

// Reload takes over a new configuration without touching calls. Listeners, RTP
// ports and the vault need a restart; their names are returned if they differ.
func (s *Switch) Reload(cfg Config) (needRestart []string, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	live, err := prepare(cfg)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(live.audioErr, live.whisperErr); err != nil {
		return nil, err
	}
	if !slices.Equal(cfg.SIP.Listen, s.cfg.SIP.Listen) || cfg.SIP.Certificate != s.cfg.SIP.Certificate || cfg.SIP.Key != s.cfg.SIP.Key {
		needRestart = append(needRestart, "sip.listen")
	}
	if cfg.SIP.Advertise != s.cfg.SIP.Advertise || cfg.SIP.Domain != s.cfg.SIP.Domain || cfg.SIP.OptionsInterval != s.cfg.SIP.OptionsInterval || cfg.SIP.UserAgent != s.cfg.SIP.UserAgent {
		needRestart = append(needRestart, "sip")
	}
	if cfg.RTP != s.cfg.RTP {
		needRestart = append(needRestart, "rtp")
	}
	s.live.Store(live)
	s.guard.configure(s.guardConfig(cfg))
	if s.running.Load() {
		s.apply(s.work)
	}
	return needRestart, nil
}

// apply starts and stops queues and trunk keepers so that they are those of
// the live configuration, and tells the desk its agents.
func (s *Switch) apply(ctx context.Context) {
	live := s.config()
	var agents []desk.Agent
	for _, e := range live.Extensions {
		if e.Agent {
			agents = append(agents, desk.Agent{ID: desk.AgentID(e.Number), ReadyOnRegister: e.Ready == "on-register", WrapUp: wrapUpOf(live, e.Number), AutoAwayAfter: autoAwayOf(live, e.Number)})
		}
	}
	s.pool.SetAgents(agents)

	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.queues
	s.queues = map[string]*runningQueue{}
	for _, q := range live.Queues {
		if r := old[q.Name]; r != nil {
			r.box.post(queueConfigured{q})
			s.queues[q.Name] = r
			delete(old, q.Name)
			continue
		}
		qctx, cancel := context.WithCancel(ctx)
		r := &runningQueue{newQueue(q, s.pool), cancel}
		s.queues[q.Name] = r
		s.tasks.Go(func() { r.run(qctx) })
	}
	for _, r := range old {
		r.box.post(queueClosing{r.cancel})
	}
	kept := s.trunks
	s.trunks = nil
	for _, t := range live.Trunks {
		if i := slices.IndexFunc(kept, func(r *runningTrunk) bool { return sameTrunk(r.cfg, t) }); i >= 0 {
			s.trunks = append(s.trunks, kept[i])
			kept = slices.Delete(kept, i, i+1)
			continue
		}
		tctx, cancel := context.WithCancel(ctx)
		r := &runningTrunk{newTrunk(t, live.Secrets.Trunks[t.Name]), cancel}
		s.trunks = append(s.trunks, r)
		s.tasks.Go(func() { r.keep(tctx, s, s.cfg.SIP.OptionsInterval) })
	}
	for _, r := range kept {
		r.cancel()
	}
}

func sameTrunk(a, b TrunkConfig) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

func wrapUpOf(live *liveConfig, ext string) time.Duration {
	var longest time.Duration
	for _, q := range live.Queues {
		if slices.Contains(q.Members, ext) {
			longest = max(longest, q.WrapUp)
		}
	}
	return longest
}

func autoAwayOf(live *liveConfig, ext string) int {
	for _, q := range live.Queues {
		if slices.Contains(q.Members, ext) && q.AutoAwayAfter > 0 {
			return q.AutoAwayAfter
		}
	}
	return 0
}

// line is when a queue takes new callers; what the office has decided besides
// its hours is asked for at every question.
func (s *Switch) line(q QueueConfig) desk.Line {
	return desk.Line{Name: q.Hours, Week: s.config().hours[q.Hours], Exceptions: s.store.Exceptions}
}

// guardConfig makes the guard's networks of the configuration.
func (s *Switch) guardConfig(cfg Config) guardConfig {
	g := guardConfig{Trusted: cfg.Guard.Trusted, Phones: cfg.Guard.Phones, Bans: cfg.Guard.Bans}
	for _, t := range cfg.Trunks {
		for _, f := range t.From {
			g.Trunks = append(g.Trunks, f.Prefix)
		}
	}
	return g
}

// watchAudio re-reads the announcements every minute: a file that is missing
// or altered makes the switch not ready (S1.4-f).
func (s *Switch) watchAudio(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		old := s.config()
		fresh := *old
		fresh.announcements = map[string]*announcement{}
		fresh.audioErr = fresh.readAudio()
		if fresh.audioErr != nil && old.audioErr == nil {
			s.log.Error("announcement unusable: incoming calls are refused", "err", fresh.audioErr)
		}
		s.live.CompareAndSwap(old, &fresh)
	}
}
