package store

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"centralka/ordinance"
)

// ID names a call and its recording: 128 random bits, written as 32
// hexadecimal digits.
type ID [16]byte

// NewID draws an ID from the system's random source.
func NewID() ID {
	var id ID
	rand.Read(id[:]) // never fails (crypto/rand, Go 1.24)
	return id
}

// ParseID reads what String writes.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("%q is not an id of 32 hexadecimal digits", s)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("%q is not an id of 32 hexadecimal digits", s)
	}
	return id, nil
}

func (id ID) String() string                      { return hex.EncodeToString(id[:]) }
func (id ID) IsZero() bool                        { return id == ID{} }
func (id ID) MarshalText() ([]byte, error)        { return []byte(id.String()), nil }
func (id *ID) UnmarshalText(b []byte) (err error) { *id, err = ParseID(string(b)); return err }

// CallDirection tells calls apart as Zarz. 284/17 §1 ust. 3 pkt 1 does.
type CallDirection string

const (
	Incoming CallDirection = "incoming" // przychodzące
	Outgoing CallDirection = "outgoing" // wychodzące
	Internal CallDirection = "internal" // between extensions, not recorded (S1.3-e)
)

// CallRecord is all that is kept about one call, from its INVITE to its end.
// It lives in the folder of its Day and goes with it.
type CallRecord struct {
	ID        ID
	Day       ordinance.Day // the partition: day of the INVITE, or of the recording's beginning
	Direction CallDirection
	Began     time.Time // INVITE received or sent
	// Caller is who calls. Its number is identifiable or not (S4.7-a).
	Caller Party
	// Called is the dialled number; for an outgoing call it is the citizen's.
	Called ordinance.Number
	// Diverted is the number that the caller dialled first, if the call was
	// forwarded to Called by the network.
	Diverted ordinance.Number `json:",omitempty"`
	Trunk    string           `json:",omitempty"`
	// Queue is the one that the call came for, then the one that it waited in last.
	Queue string `json:",omitempty"`
	// Extension is the phone that placed an outgoing or internal call.
	Extension    string            `json:",omitempty"`
	Announcement *AnnouncementPlay `json:",omitempty"`
	Queued       time.Time         `json:",omitzero"` // entered the first queue
	Stays        []Stay            `json:",omitempty"`
	Rings        []Ring            `json:",omitempty"`
	Answered     time.Time         `json:",omitzero"` // the conversation began
	Segments     []Segment         `json:",omitempty"`
	Holds        []Hold            `json:",omitempty"`
	Ended        time.Time         `json:",omitzero"`
	// Cause says why the call ended; empty while it goes on.
	Cause Cause `json:",omitempty"`
	// SIPStatus is the final status sent or received, Q850 the cause of a Reason
	// header (RFC 3326); 0 = none.
	SIPStatus int       `json:",omitempty"`
	Q850      int       `json:",omitempty"`
	Recording Recording // its outcome
	// Quality is how the voice of each leg fared, in the order in which they ended.
	Quality []Quality `json:",omitempty"`
	// Tags are what was said of the call at wrap-up; the last one holds. TagCall
	// owns them: a record that is put without them leaves them as they are.
	Tags []Tag `json:",omitempty"`
	// Revision grows with every change; the store keeps the newest.
	Revision uint32
}

// Party is a caller's identity in its three fields: number, where it was read,
// and presentation.
type Party struct {
	// Number is empty if the caller withheld it, whatever the network passed on
	// (S4.7-a).
	Number ordinance.Number `json:",omitempty"`
	// Raw is the user part as it was received; empty if withheld.
	Raw string `json:",omitempty"`
	// Source is the header that it came from: "P-Asserted-Identity",
	// "P-Preferred-Identity", "From".
	Source string `json:",omitempty"`
	// Presentation is "allowed", "withheld" or "unavailable".
	Presentation string `json:",omitempty"`
}

// Identifiable tells whether the caller's number is known (Zarz. 284/17 §4 ust. 7).
func (p Party) Identifiable() bool { return p.Number != "" && p.Presentation == "allowed" }

// AnnouncementPlay is S1.4-e: which announcement the caller heard, and when.
type AnnouncementPlay struct {
	Version     string
	TextSHA256  string
	AudioSHA256 string
	Started     time.Time
	Ended       time.Time `json:",omitzero"`
	Complete    bool      // played to its last frame without a break
}

// Ring is one offer of the call to an agent or phone, or to somebody outside to
// whom a phone has forwarded it.
type Ring struct {
	Extension string
	Number    ordinance.Number `json:",omitempty"` // instead of Extension, if it is outside
	From, To  time.Time
	Result    string // "answered", "timeout", "busy", "declined", "unreachable", "cancelled", "forwarded"
}

// Stay is a stretch of waiting in one queue.
type Stay struct {
	Queue    string
	From, To time.Time
	Result   StayResult // empty while it goes on
}

// StayResult is how a stay in a queue ended.
type StayResult string

const (
	StayAnswered   StayResult = "answered"
	StayAbandoned  StayResult = "abandoned"  // the caller hung up
	StayOverflowed StayResult = "overflowed" // max_wait or max_length
	StayFailed     StayResult = "failed"     // the call ended for another reason
)

// staysInQueues are the stays, closed if the call has ended; of a record that
// has none they are derived from its times.
func (rec *CallRecord) staysInQueues() []Stay {
	stays := slices.Clone(rec.Stays)
	if len(stays) == 0 && !rec.Queued.IsZero() {
		stays = []Stay{{Queue: rec.Queue, From: rec.Queued}}
		if !rec.Answered.IsZero() {
			stays[0].To, stays[0].Result = rec.Answered, StayAnswered
		}
	}
	for i := range stays {
		if stays[i].Result != "" || rec.Cause == "" {
			continue
		}
		stays[i].To, stays[i].Result = rec.Ended, rec.Cause.stayResult()
	}
	return stays
}

// BeginStay notes that the caller waits in a queue from now on.
func (rec *CallRecord) BeginStay(queue string, at time.Time) {
	rec.Queue = queue
	if rec.Queued.IsZero() {
		rec.Queued = at
	}
	rec.Stays = append(rec.Stays, Stay{Queue: queue, From: at})
}

// EndStay closes the stay that goes on, if one does; an empty result is that of
// the call's cause.
func (rec *CallRecord) EndStay(at time.Time, result StayResult) {
	n := len(rec.Stays)
	if n == 0 || rec.Stays[n-1].Result != "" {
		return
	}
	if result == "" {
		result = rec.Cause.stayResult()
	}
	rec.Stays[n-1].To, rec.Stays[n-1].Result = at, result
}

// stayResult is how the stay of a call ended that waited until its end.
func (c Cause) stayResult() StayResult {
	switch c {
	case CauseAbandoned:
		return StayAbandoned
	case CauseQueueTimeout:
		return StayOverflowed
	}
	return StayFailed
}

// Segment is a stretch of the conversation with one agent, or with somebody
// outside to whom an agent has passed it on.
type Segment struct {
	Extension string           `json:",omitempty"`
	Number    ordinance.Number `json:",omitempty"` // instead of Extension, if it is outside
	From      time.Time
	To        time.Time `json:",omitzero"`
}

// Hold is a stretch in which one side held the other; both lanes of the
// recording are silent in it.
type Hold struct {
	By       string // "citizen" or "office"
	From, To time.Time
}

// Quality sums up one leg's media. What was heard came from the party to us; what
// was told went to it, and is known from the party's own reports (RTCP).
type Quality struct {
	Leg   string // as in the ladder: "a", "b1", …
	Party string // trunk or extension

	Received   uint64
	Lost       uint64        `json:",omitempty"` // never came
	Late       uint64        `json:",omitempty"` // overtaken by a later packet
	Duplicate  uint64        `json:",omitempty"`
	Gaps       uint64        `json:",omitempty"` // runs of packets that were missing
	JitterMean time.Duration `json:",omitempty"`
	JitterMax  time.Duration `json:",omitempty"`
	RTT        time.Duration `json:",omitempty"` // last and largest round trip
	RTTMax     time.Duration `json:",omitempty"`
	HeardMOS   float64       `json:",omitempty"` // estimate, 1..4.4; 0: nothing was heard

	Sent         uint64
	RemoteLost   uint64        `json:",omitempty"`
	RemoteJitter time.Duration `json:",omitempty"`
	ToldMOS      float64       `json:",omitempty"` // 0: the party makes no reports

	// Dropped counts packets that were not handed on, by cause (media.Drops).
	Dropped map[string]uint64 `json:",omitempty"`
}

// WorstMOS is the lowest estimate of all legs, heard or told; 0: there is none.
func (r *CallRecord) WorstMOS() (worst float64) {
	for _, q := range r.Quality {
		for _, mos := range []float64{q.HeardMOS, q.ToldMOS} {
			if mos > 0 && (worst == 0 || mos < worst) {
				worst = mos
			}
		}
	}
	return worst
}

// Cause is why a call ended; each ended call has exactly one.
type Cause string

const (
	CauseHangupCaller       Cause = "caller_hung_up"          // after the conversation began
	CauseHangupCalled       Cause = "called_hung_up"          // after the conversation began
	CauseAnnouncementHangup Cause = "hung_up_in_announcement" // rozłączono w trakcie komunikatu (S1.4-d)
	CauseAbandoned          Cause = "abandoned"               // hung up while waiting in the queue
	CauseCancelled          Cause = "cancelled"               // CANCEL before the answer
	CauseBusy               Cause = "busy"
	CauseNoAnswer           Cause = "no_answer"
	CauseDeclined           Cause = "declined"
	CauseUnreachable        Cause = "unreachable"    // the called party could not be reached
	CauseQueueTimeout       Cause = "queue_timeout"  // max_wait or max_length; the closing message was played
	CauseClosed             Cause = "closed"         // outside opening hours
	CauseNotFound           Cause = "not_found"      // no such number or extension
	CauseForbidden          Cause = "forbidden"      // a dial rule or the guard refused
	CauseNotAcceptable      Cause = "not_acceptable" // no common codec, no audio
	CauseOverload           Cause = "overload"       // no port, limit of calls, not ready
	CauseNoAck              Cause = "no_ack"         // the 200 OK was never acknowledged
	CauseMediaTimeout       Cause = "media_timeout"
	CauseSessionExpired     Cause = "session_expired" // a peer did not refresh its session (RFC 4028)
	CauseShutdown           Cause = "shutdown"        // the switch was stopped
	CauseInterrupted        Cause = "interrupted"     // the switch died; set by recovery
	CauseInternal           Cause = "internal_error"
)

// Outcome says how the recording of a call went; each ended call has exactly
// one.
type Outcome string

const (
	// OutcomeOK: complete. Silence, loss on the network and hold do not count
	// against it.
	OutcomeOK Outcome = "ok"
	// OutcomeDegraded: there is a recording, but we lost part of it; see Counts.
	OutcomeDegraded Outcome = "degraded"
	// OutcomeFailed: there should be a recording and there is none („brak
	// nagrania – awaria", S1.3-j).
	OutcomeFailed Outcome = "failed"
	// OutcomeNone: the call is of a kind that is not recorded, or was never
	// answered; Reason says which.
	OutcomeNone Outcome = "none"
)

// Recording describes the WAV of a call, or why there is none.
type Recording struct {
	Outcome Outcome `json:",omitempty"`
	// Reason explains every outcome but ok.
	Reason   string        `json:",omitempty"`
	Began    time.Time     `json:",omitzero"`
	Duration time.Duration `json:",omitempty"` // of the WAV
	Size     int64         `json:",omitempty"` // bytes of the WAV
	SHA256   string        `json:",omitempty"` // of the WAV, computed at close (S1.3-k)
	Counts   RecordingCounts
	// Peaks is the largest magnitude per column and lane, 0..255, for drawing:
	// citizen, office.
	Peaks [2][]byte `json:",omitempty"`
}

// RecordingCounts tells what the network and the recorder lost, per lane:
// citizen, office.
type RecordingCounts struct {
	Packets   [2]uint64 // packets in the timeline
	Lost      [2]uint64 // never arrived (sequence numbers)
	Duplicate [2]uint64
	Reordered [2]uint64
	Dropped   [2]uint64 // arrived, but the recorder could not keep them
	// Unplaced are samples of packets that were read so late that their places in
	// the recording were taken, or lay beyond its end.
	Unplaced   [2]uint64
	TornBytes  int64  // bytes of a journal cut off by a crash
	WriteFails uint64 // blocks that the disk refused
}
