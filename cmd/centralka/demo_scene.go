package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"centralka/ordinance"
	"centralka/pbx/pbxtest"
)

// The numbers of the demo. They are made up;
// nothing here leaves this machine.
const (
	cityNumber = ordinance.Number("+48914245000")
	dialPrefix = "0" // in front of numbers outside
)

// The pace of the demo. Together with the announcement (17.3 s) it stays below
// the 40 s that --once has.
const (
	answerAfter = 900 * time.Millisecond // how long everybody lets it ring
	pause       = 150 * time.Millisecond // between two lines
	patience    = 8 * time.Second        // until something that must happen at once has not
	ringWithin  = 25 * time.Second       // from the dialling to a phone that rings
)

// spoken is a line that somebody says, and what it means.
type spoken struct {
	office  bool // said by the office, else by the resident
	voice   string
	polish  string
	english string
	pcm     []int16
	said    time.Time // when it began
}

// scene is one call of the demo: what is to happen, and what did. play owns it;
// when that has returned, the checks read it.
type scene struct {
	name     string // "A"
	title    string
	resident ordinance.Number
	starts   time.Duration
	withheld bool
	outgoing string        // the phone that calls the resident; empty: the resident calls
	leaves   time.Duration // after so long the resident hangs up, wherever the call is
	office   bool          // who hangs up at the end of the conversation
	lines    []spoken

	citizen *pbxtest.Call // the carrier's side
	phone   *pbxtest.Call // the phone's; nil if none rang
	agent   string        // whose phone it is
	err     error         // why it did not go as written
}

// recorded tells whether there must be a recording: there is a conversation.
func (s *scene) recorded() bool { return len(s.lines) > 0 }

// scenes is what the demo plays. The calls overlap: C meets both agents busy.
func scenes() []*scene {
	return []*scene{
		{
			name: "A", title: "a resident calls and talks to an agent", resident: "+48600100201",
			lines: []spoken{
				{office: true, voice: "agent-hello", polish: "Dzień dobry, Centrum Informacji Mieszkańców, w czym mogę pomóc?",
					english: "Good morning, residents' information centre, how can I help?"},
				{office: false, voice: "caller-id", polish: "Dzień dobry, chciałabym zapytać o termin odbioru dowodu osobistego.",
					english: "Good morning, when can I collect my identity card?"},
				{office: true, voice: "agent-ready", polish: "Dowód jest gotowy, można go odebrać od jutra.",
					english: "The card is ready, from tomorrow on."},
				{office: false, voice: "caller-thanks", polish: "Dziękuję bardzo, do widzenia.",
					english: "Thank you very much, goodbye."},
			},
		},
		{
			name: "B", title: "a resident hangs up during the announcement", resident: "+48600100302",
			starts: 400 * time.Millisecond, leaves: 6 * time.Second,
		},
		{
			name: "C", title: "a resident with a withheld number calls while both agents are busy", resident: "+48600100403",
			starts: 800 * time.Millisecond, withheld: true, office: true,
			lines: []spoken{
				{office: true, voice: "agent-hello", polish: "Dzień dobry, Centrum Informacji Mieszkańców, w czym mogę pomóc?",
					english: "Good morning, residents' information centre, how can I help?"},
				{office: false, voice: "caller-waste", polish: "Dzień dobry, kiedy odbierają odpady wielkogabarytowe?",
					english: "Good morning, when is bulky waste collected?"},
			},
		},
		{
			name: "D", title: "an agent calls a resident back", resident: "+48600100504",
			starts: 12500 * time.Millisecond, outgoing: "102",
			lines: []spoken{
				{office: true, voice: "agent-callback", polish: "Dzień dobry, oddzwaniam z urzędu miasta w sprawie wniosku.",
					english: "Good morning, I am calling back from the city hall about your application."},
				{office: false, voice: "resident-yes", polish: "Tak, słucham, dziękuję za telefon.",
					english: "Yes, I am listening, thank you for calling."},
			},
		},
	}
}

// play plays all scenes at once and returns when the last is over. A done ctx
// hangs up what is under way.
func (c *city) play(ctx context.Context, scenes []*scene) {
	var playing, ringing sync.WaitGroup
	answered := make(map[string]chan *pbxtest.Call, len(scenes))
	for _, s := range scenes {
		answered[s.name] = make(chan *pbxtest.Call, len(c.phones))
	}
	scripts, over := context.WithCancel(ctx)
	// Who rings is the switch's decision: each phone's calls go to their scenes.
	for _, p := range c.phones {
		ringing.Go(func() {
			for scripts.Err() == nil {
				call, err := p.WaitCall(pause)
				if errors.Is(err, pbxtest.ErrClosed) {
					return
				}
				if err != nil {
					continue
				}
				if to := answered[sceneOf(scenes, call.Invite().Number("From"))]; to != nil {
					to <- call
				}
			}
		})
	}
	for _, s := range scenes {
		playing.Go(func() {
			s.err = c.playOne(scripts, s, answered[s.name])
			if errors.Is(s.err, context.DeadlineExceeded) {
				s.err = fmt.Errorf("it was not over after %v", playTime)
			}
			if s.err != nil && ctx.Err() == nil {
				c.screen.tell(s.name, "Not as planned: "+s.err.Error())
			}
		})
	}
	playing.Wait()
	over()
	ringing.Wait()
}

// sceneOf names the scene of a call by what a phone, or the carrier, is shown of
// the resident.
func sceneOf(scenes []*scene, shown string) string {
	number, known := ordinance.ParseNumber(shown)
	for _, s := range scenes {
		if known && s.resident == number && !s.withheld || !known && s.withheld {
			return s.name
		}
	}
	return ""
}

func (c *city) playOne(ctx context.Context, s *scene, answered <-chan *pbxtest.Call) error {
	if err := sleep(ctx, s.starts); err != nil {
		return err
	}
	var err error
	if s.outgoing != "" {
		err = c.dialOut(ctx, s)
	} else {
		err = c.dialIn(ctx, s, answered)
	}
	for _, call := range []*pbxtest.Call{s.citizen, s.phone} {
		if call == nil {
			continue
		}
		if err != nil {
			call.Hangup()
		}
		if late := call.WaitEnded(patience); err == nil && late != nil {
			err = fmt.Errorf("the call does not end: %w", late)
		}
	}
	return err
}

// dialIn is a resident who calls the city.
func (c *city) dialIn(ctx context.Context, s *scene, answered <-chan *pbxtest.Call) error {
	o := pbxtest.CallOptions{From: s.resident.E164(), To: cityNumber.E164(), PAI: s.resident.E164()}
	if s.withheld {
		o.Anonymous, o.Privacy = true, "id" // the network knows, the callee must not
	}
	text := "A resident dials the city's number; the carrier brings the call to the switch."
	if s.withheld {
		text = "A resident who withholds the number dials the city; the carrier knows it and says: do not show."
	}
	c.screen.tell(s.name, text)
	var err error
	if s.citizen, err = c.carrier.Call(o); err != nil {
		return err
	}
	if s.leaves > 0 {
		if err := sleep(ctx, s.leaves); err != nil {
			return err
		}
		c.screen.tell(s.name, "The resident does not agree to being recorded and hangs up, as the announcement offers.")
		s.citizen.Hangup()
		return nil
	}
	select {
	case s.phone = <-answered:
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(ringWithin):
		return errors.New("no phone rang")
	}
	s.agent = c.phoneOf(s.phone)
	if err := s.phone.WaitAnswered(patience); err != nil {
		return fmt.Errorf("the agent's phone was not connected: %w", err)
	}
	return c.converse(ctx, s)
}

// dialOut is an agent who calls a resident.
func (c *city) dialOut(ctx context.Context, s *scene) error {
	s.agent = s.outgoing
	p := c.phones[slices.IndexFunc(c.phones, func(p *pbxtest.Phone) bool { return p.Name() == s.outgoing })]
	c.screen.tell(s.name, "Agent "+s.agent+" dials a resident's number on the desk phone.")
	var err error
	if s.phone, err = p.Dial(dialPrefix + s.resident.E164()[len("+48"):]); err != nil {
		return err
	}
	if s.citizen, err = c.carrier.WaitCall(patience); err != nil {
		return fmt.Errorf("the call did not come out at the carrier: %w", err)
	}
	if err := s.phone.WaitAnswered(patience); err != nil {
		return fmt.Errorf("the resident's answer did not reach the phone: %w", err)
	}
	return c.converse(ctx, s)
}

// converse speaks the lines in turn and hangs up.
func (c *city) converse(ctx context.Context, s *scene) error {
	for i := range s.lines {
		l := &s.lines[i]
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		var err error
		if l.pcm, err = pbxtest.VoiceOf(l.voice); err != nil {
			return err
		}
		who, call := "Resident", s.citizen
		if l.office {
			who, call = "Agent "+s.agent, s.phone
		}
		l.said = time.Now()
		call.Say(pbxtest.Once(l.pcm))
		c.screen.tell(s.name, fmt.Sprintf("%s: „%s” (%s)", who, l.polish, l.english))
		if err := sleep(ctx, lengthOf(l.pcm)); err != nil {
			return err
		}
		if call.State() == pbxtest.Ended {
			return errors.New("the call ended before its time")
		}
	}
	if err := sleep(ctx, pause); err != nil {
		return err
	}
	if s.office {
		s.phone.Hangup()
	} else {
		s.citizen.Hangup()
	}
	return nil
}

// phoneOf names the phone at which a call rings.
func (c *city) phoneOf(call *pbxtest.Call) string {
	for _, p := range c.phones {
		if p.Addr().Addr() == call.MediaAddr().Addr() {
			return p.Name()
		}
	}
	return ""
}

// sleep waits for d unless ctx is done before.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func lengthOf(pcm []int16) time.Duration {
	return time.Duration(len(pcm)) * time.Second / pbxtest.Rate
}
