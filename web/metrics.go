package web

import "github.com/prometheus/client_golang/prometheus"

// collector turns a snapshot into metrics at each scrape. Labels are names of
// trunks, queues, states and causes: a bounded set, and nothing personal.
type collector struct{ cfg StatusConfig }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("centralka_"+name, help, labels, nil)
}

var (
	descReady      = desc("ready", "1 if incoming calls are taken.")
	descAlarms     = desc("alarms", "Alarms that stand now.", "id")
	descBuild      = desc("build_info", "The running version.", "version")
	descStarted    = desc("start_time_seconds", "When the program started, Unix time.")
	descCalls      = desc("calls", "Calls now, by direction and phase.", "direction", "phase")
	descBegan      = desc("calls_began_total", "Calls begun since the start.", "direction")
	descEnded      = desc("calls_ended_total", "Calls ended since the start, by cause.", "cause")
	descTrunkUp    = desc("trunk_up", "1 if the trunk answers.", "trunk")
	descTrunkCalls = desc("trunk_calls", "Calls on the trunk now.", "trunk")
	descPhones     = desc("phones_registered", "Extensions with a reachable device.")
	descWaiting    = desc("queue_waiting", "Callers waiting.", "queue")
	descLongest    = desc("queue_longest_wait_seconds", "The longest wait now.", "queue")
	descAgents     = desc("agents", "Agents by state.", "state")
	descActive     = desc("recordings_active", "Conversations being recorded.")
	descRendering  = desc("recordings_rendering", "Recordings waiting to be rendered.")
	descOutcomes   = desc("recordings_total", "Recordings since the start, by outcome.", "outcome")
	descDropped    = desc("recorder_dropped_total", "What the recorder lost, by cause.", "cause")
	descFree       = desc("vault_free_bytes", "Room on the vault's file system.")
	descTotal      = desc("vault_size_bytes", "Size of the vault's file system.")
	descMismatch   = desc("vault_mismatches", "Recordings that the last integrity check found wrong.")
	descUnknown    = desc("vault_unexplained", "Files without record, records without file, and names that the index does not list.")
	descStreams    = desc("media_streams", "Open streams.", "engine")
	descPackets    = desc("media_packets_total", "RTP packets since the start, by what became of them.", "what")
	descLate       = desc("media_lateness_seconds", "How late packets leave that are due by the clock, over the last seconds.", "of")
	descMOS        = desc("leg_mos", "Estimated quality of the voice of legs that ended (ITU-T G.107), heard from the party or told by its reports.", "side")
	descGuard      = desc("guard_total", "Datagrams since the start, by what became of them.", "what")
	descExpiry     = desc("certificate_expiry_time_seconds", "When the certificate for SIP over TLS ends, Unix time.")
	descConns      = desc("sip_connections", "SIP connections, by transport.", "transport")
	descPanics     = desc("panics_total", "Calls ended by an internal error.")
)

// Describe names no metric: what there is depends on the snapshot.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect takes a snapshot.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := c.cfg.Snapshot()
	put := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) { put(d, prometheus.GaugeValue, v, labels...) }
	count := func(d *prometheus.Desc, v float64, labels ...string) { put(d, prometheus.CounterValue, v, labels...) }

	gauge(descReady, truth(len(s.NotReady) == 0))
	gauge(descBuild, 1, c.cfg.Version)
	gauge(descStarted, float64(s.Started.Unix()))
	alarms := map[string]int{}
	for _, a := range s.Alarms {
		alarms[a.ID]++
	}
	for id, n := range alarms {
		gauge(descAlarms, float64(n), id)
	}
	type kind struct{ direction, phase string }
	calls := map[kind]int{}
	for _, call := range s.Calls {
		calls[kind{call.Direction, call.Phase}]++
	}
	for k, n := range calls {
		gauge(descCalls, float64(n), k.direction, k.phase)
	}
	for d, n := range s.Began {
		count(descBegan, float64(n), d)
	}
	for cause, n := range s.Ended {
		count(descEnded, float64(n), cause)
	}
	for _, t := range s.Trunks {
		gauge(descTrunkUp, truth(t.Up), t.Name)
		gauge(descTrunkCalls, float64(t.Calls), t.Name)
	}
	phones := 0
	for _, p := range s.Phones {
		if p.Devices > 0 {
			phones++
		}
	}
	gauge(descPhones, float64(phones))
	for _, q := range s.Queues {
		gauge(descWaiting, float64(q.Waiting), q.Name)
		gauge(descLongest, q.Longest.Seconds(), q.Name)
	}
	agents := map[string]int{}
	for _, a := range s.Agents {
		agents[a.State]++
	}
	for state, n := range agents {
		gauge(descAgents, float64(n), state)
	}
	gauge(descActive, float64(s.Recorder.Active))
	gauge(descRendering, float64(s.Recorder.Rendering))
	for o, n := range s.Recorder.Outcomes {
		count(descOutcomes, float64(n), o)
	}
	for cause, n := range s.Recorder.Dropped {
		count(descDropped, float64(n), cause)
	}
	gauge(descFree, float64(s.Vault.Free))
	gauge(descTotal, float64(s.Vault.Total))
	gauge(descMismatch, float64(s.Vault.Mismatches))
	gauge(descUnknown, float64(s.Vault.Unexplained))
	gauge(descStreams, float64(s.Media.Streams), s.Media.Engine)
	count(descPackets, float64(s.Media.Received), "received")
	count(descPackets, float64(s.Media.Sent), "sent")
	for cause, n := range s.Media.Dropped {
		count(descPackets, float64(n), cause)
	}
	gauge(descLate, s.Media.Late.Seconds(), "mean")
	gauge(descLate, s.Media.LateMax.Seconds(), "max")
	for side, mos := range map[string]MOS{"heard": s.Media.Heard, "told": s.Media.Told} {
		out <- prometheus.MustNewConstHistogram(descMOS, mos.N, mos.Sum, mos.AtMost, side)
	}
	for what, n := range s.Guard {
		count(descGuard, float64(n), what)
	}
	if !s.Certificate.IsZero() {
		gauge(descExpiry, float64(s.Certificate.Unix()))
	}
	for transport, n := range s.Connections {
		gauge(descConns, float64(n), transport)
	}
	count(descPanics, float64(s.Panics))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
