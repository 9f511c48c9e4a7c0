package web

import "time"

// Snapshot is a picture of the program for administrators, in the form in which
// /stan.json shows it. Whoever runs the program makes it; it must hold no
// number and no name of a person.
type Snapshot struct {
	At        time.Time `json:"at"`
	Started   time.Time `json:"started"`
	NotReady  []string  `json:"not_ready"` // why incoming calls are refused; empty: they are taken
	Draining  bool      `json:"draining"`
	Alarms    []Alarm   `json:"alarms"`
	Calls     []Call    `json:"calls"`
	Trunks    []Trunk   `json:"trunks"`
	Phones    []Phone   `json:"phones"`
	Queues    []Queue   `json:"queues"`
	Agents    []Agent   `json:"agents"`
	Recorder  Recorder  `json:"recorder"`
	Vault     Vault     `json:"vault"`
	Announced Announced `json:"announcement"`
	Media     Media     `json:"media"`
	// Began and Ended count calls since the start, by direction and by cause.
	Began map[string]int64 `json:"calls_began"`
	Ended map[string]int64 `json:"calls_ended"`
	// Certificate is when our certificate for SIP over TLS ends; zero: there is none.
	Certificate time.Time `json:"certificate_until,omitzero"`
	// Connections counts SIP's by transport.
	Connections map[string]int `json:"connections"`
	// Guard counts datagrams by what became of them.
	Guard  map[string]uint64 `json:"guard"`
	Panics int64             `json:"panics"`
}

// Alarm is something that an administrator must look at.
type Alarm struct {
	// ID is the heading in docs/operations.md that says what to do.
	ID   string    `json:"id"`
	Text string    `json:"text"` // Polish
	Time time.Time `json:"since,omitzero"`
}

// Call is a call that is not over.
type Call struct {
	ID        string    `json:"id"`
	Direction string    `json:"direction"` // incoming, outgoing, internal
	Phase     string    `json:"phase"`
	Began     time.Time `json:"began"`
	Since     time.Time `json:"since"` // in this phase
	Trunk     string    `json:"trunk,omitempty"`
	Queue     string    `json:"queue,omitempty"`
	Extension string    `json:"extension,omitempty"`
	Recorded  bool      `json:"recorded"`
	Held      bool      `json:"held"`
	MOS       float64   `json:"mos"` // worst estimate of what is heard of a party; 0: unknown
	Voices    []Voice   `json:"voices"`
}

// Voice is how one party of a call speaks.
type Voice struct {
	Party string `json:"party"`          // the trunk or the extension
	SRTP  string `json:"srtp,omitempty"` // the suite; empty: in the clear
}

// Trunk is a line to a carrier.
type Trunk struct {
	Name       string    `json:"name"`
	Up         bool      `json:"up"`
	Calls      int       `json:"calls"`
	MaxCalls   int       `json:"max_calls"`
	LastSeen   time.Time `json:"last_seen,omitzero"`
	Registered time.Time `json:"registered_until,omitzero"`
	Err        string    `json:"error,omitempty"`
}

// Phone is an extension.
type Phone struct {
	Extension string `json:"extension"`
	Devices   int    `json:"devices"` // that can be reached
	Calls     int    `json:"calls"`
}

// Queue is a queue.
type Queue struct {
	Name    string        `json:"name"`
	Open    bool          `json:"open"`
	Waiting int           `json:"waiting"`
	Longest time.Duration `json:"longest_wait_ns"`
	// Expected is what whoever comes now will wait; 0 if nothing can be said.
	Expected time.Duration `json:"expected_wait_ns"`
}

// Agent is an agent's state.
type Agent struct {
	Extension string    `json:"extension"`
	State     string    `json:"state"` // away, ready, offered, talking, wrap-up
	Reason    string    `json:"reason,omitempty"`
	Since     time.Time `json:"since"`
}

// Recorder is how recordings fare.
type Recorder struct {
	Active    int               `json:"active"`
	Rendering int               `json:"rendering"`
	Outcomes  map[string]uint64 `json:"outcomes"` // since the start
	Recovered uint64            `json:"recovered"`
	Dropped   map[string]uint64 `json:"dropped"` // what we lost, by cause
	Err       string            `json:"error,omitempty"`
	ErrAt     time.Time         `json:"error_at,omitzero"`
	Incidents int               `json:"incidents_7_days"` // recordings failed or degraded
	// Latest are the newest of them (S1.3-j).
	Latest []Incident `json:"incidents"`
}

// Incident is a call whose recording failed or is not whole.
type Incident struct {
	At        time.Time `json:"at"` // the call's beginning
	Call      string    `json:"call"`
	Direction string    `json:"direction"`
	Outcome   string    `json:"outcome"` // failed, degraded
	Reason    string    `json:"reason"`
}

// Vault is the room for recordings, and their retention.
type Vault struct {
	Free         int64     `json:"free_bytes"`
	Total        int64     `json:"total_bytes"`
	DaysLeft     int       `json:"days_left"` // -1: unknown
	NextSweep    time.Time `json:"next_sweep,omitzero"`
	LastSweep    time.Time `json:"last_sweep,omitzero"`
	SweptDays    int       `json:"swept_days"`
	SweepErr     string    `json:"sweep_error,omitempty"`
	SweepHeld    string    `json:"sweep_held,omitempty"`
	Unexplained  int       `json:"unexplained"` // files without record, records without file, foreign names
	Reconciled   time.Time `json:"reconciled,omitzero"`
	LastVerified time.Time `json:"last_verified,omitzero"`
	Verified     int       `json:"verified"`
	Mismatches   int       `json:"mismatches"`
}

// Announced is the announcement in force.
type Announced struct {
	Version     string        `json:"version"`
	TextSHA256  string        `json:"text_sha256"`
	AudioSHA256 string        `json:"audio_sha256"`
	Duration    time.Duration `json:"duration_ns"`
	TooShort    bool          `json:"too_short"`
	Err         string        `json:"error,omitempty"`
}

// Media is the packet engine.
type Media struct {
	Engine   string `json:"engine"`
	Streams  int    `json:"streams"`
	Ports    int    `json:"ports"`
	Draining int    `json:"draining"`
	Received uint64 `json:"received"`
	Sent     uint64 `json:"sent"`
	// Dropped counts packets that were not handed on, by cause (media.Drops).
	Dropped map[string]uint64 `json:"dropped"`
	// Late is how late packets leave that are due by the clock: mean and most of the
	// last seconds.
	Late    time.Duration `json:"late_mean_ns"`
	LateMax time.Duration `json:"late_max_ns"`
	// Heard and Told are the estimated quality of voice from and to the parties of
	// calls that have ended.
	Heard MOS `json:"mos_heard"`
	Told  MOS `json:"mos_told"`
}

// MOS is a histogram of estimated mean opinion scores, 1 to 4.4.
type MOS struct {
	N   uint64  `json:"count"`
	Sum float64 `json:"sum"`
	// AtMost counts the estimates that are not above a bound.
	AtMost map[float64]uint64 `json:"-"`
}

// Mean is the mean estimate.
func (m MOS) Mean() float64 {
	if m.N == 0 {
		return 0
	}
	return m.Sum / float64(m.N)
}
