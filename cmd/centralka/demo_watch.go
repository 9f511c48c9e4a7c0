package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"centralka/ordinance"
	"centralka/pbx"
)

// watch tells what becomes of the calls as the switch sees them, until ctx is
// done.
func (c *city) watch(ctx context.Context) {
	views := map[string]*view{}
	for _, s := range c.scenes {
		views[s.name] = &view{scene: s}
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	logged := time.Now()
	for {
		select {
		case <-ctx.Done():
			c.screen.show("")
			return
		case <-tick.C:
		}
		line := c.look(views, c.sys.sw.Status())
		c.screen.show(line)
		if !c.screen.terminal && time.Since(logged) >= logEvery {
			logged = time.Now()
			c.screen.print("%s", line)
		}
	}
}

// view is what was seen of a scene.
type view struct {
	scene *scene
	id    string // of the switch's call
	phase string
	since time.Time
	told  bool // the present phase
	over  bool
	agent string
	music bool
}

// look brings the views up to date, tells what has changed and returns the line
// of progress.
func (c *city) look(views map[string]*view, st pbx.Status) string {
	seen := map[string]pbx.CallStatus{}
	for _, call := range st.Calls {
		id := call.ID.String()
		seen[id] = call
		// Of each direction, calls begin in the order of the scenes.
		taken := false
		for _, v := range views {
			taken = taken || v.id == id
		}
		for _, s := range c.scenes {
			if v := views[s.name]; !taken && v.id == "" && (s.outgoing != "") == (call.Direction == "outgoing") {
				v.id, taken = id, true
			}
		}
	}
	c.mu.Lock()
	c.peak = max(c.peak, len(st.Calls))
	c.mu.Unlock()

	var parts []string
	for _, s := range c.scenes {
		v := views[s.name]
		if v.id != "" && !v.over {
			call, going := seen[v.id]
			c.follow(v, call, going, st.Announcement.Duration)
		}
		parts = append(parts, s.name+" "+v.short(st.Announcement.Duration))
	}
	waiting := 0
	for _, q := range st.Queues {
		waiting += q.Waiting
	}
	return fmt.Sprintf("%s  queue %d   %s", c.screen.stamp(), waiting, strings.Join(parts, "   "))
}

// follow tells a change of one call's phase.
func (c *city) follow(v *view, call pbx.CallStatus, going bool, announcement time.Duration) {
	s := v.scene
	if !going {
		v.over = true
		switch {
		case v.phase == "talking":
			c.screen.tell(s.name, "Hung up: the call is over, and its recording goes into the vault.")
		case s.leaves > 0:
			c.screen.tell(s.name, "The call is over. No phone rang and nothing was recorded.")
		default:
			c.screen.tell(s.name, "The call is over.")
		}
		return
	}
	if call.Phase != v.phase {
		v.phase, v.since, v.told = call.Phase, call.Since, false
	}
	v.agent = call.Extension
	if v.told {
		return
	}
	v.told = true
	switch v.phase {
	case "announcement":
		text := "Answered by the switch, which plays the announcement first, too."
		if s == c.scenes[0] {
			text = fmt.Sprintf("The switch answers and plays the announcement that the ordinance orders, %s of it: „%s” (All calls are recorded; who does not agree, please hang up.) Until its last word no phone may ring.", seconds(announcement), ordinance.AnnouncementText)
		}
		c.screen.tell(s.name, text)
	case "queue":
		if time.Since(v.since) < waitIsShown {
			v.told = false // mostly it lasts no time
			return
		}
		v.music = true
		c.mu.Lock()
		c.queued[s.name] = true
		c.mu.Unlock()
		c.screen.tell(s.name, "Has heard all of the announcement. No agent is free: waits in the queue, with music.")
	case "ringing":
		switch {
		case s.outgoing != "":
			c.screen.tell(s.name, "The switch passes the call on to the carrier; the resident's telephone rings.")
		case v.music:
			c.screen.tell(s.name, "An agent is free again: that phone rings.")
		default:
			c.screen.tell(s.name, "Has heard all of the announcement. An agent's phone rings, the resident hears music.")
		}
	case "talking":
		select {
		case <-c.talking:
		default:
			close(c.talking)
		}
		who := "Agent " + v.agent
		if s.outgoing != "" {
			who = "The resident"
		}
		c.screen.tell(s.name, who+" picks up. The two are connected, and the recording begins.")
	}
}

// short is the call in the line of progress.
func (v *view) short(announcement time.Duration) string {
	switch {
	case v.over:
		return "over"
	case v.id == "":
		return "to come"
	case v.phase == "announcement":
		return "announcement " + gauge(time.Since(v.since), announcement)
	case v.phase == "talking":
		return fmt.Sprintf("talks to %s %.0f s", v.agent, time.Since(v.since).Seconds())
	case v.phase == "queue":
		return "waits, music"
	}
	return v.phase
}
