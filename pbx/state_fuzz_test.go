package pbx_test

import (
	"testing"
	"testing/synctest"
	"time"

	"centralka/pbx"
	"centralka/pbx/pbxtest"
)

// FuzzState reads bytes as a script: each byte is a message or a deed of the
// caller, the phone or the network, in whatever state the call is in. Whatever
// the order, there is no panic, and nothing is left over of the calls.
func FuzzState(f *testing.F) {
	for _, script := range []string{
		"",
		"Iwwwwwb",               // hang up after the announcement
		"ICwwww",                // cancel at once
		"Iwwwwwwwwhwwrwwb",      // hold and resume
		"IwwwwwwwwHwwhwwRwrwwB", // both hold
		"IwwwwwwwwLwwLwwb",      // late offers
		"Iwwwwwwwwxxxuiopsyb",   // in-dialog noise
		"IwwwwAwwwwwwwwdddb",    // lost ACKs
		"Dwwwwwwbww",            // outgoing
		"DwCwDwwwwBw",
		"IIIIwwwwwwbbbb",
		"IwwwwwwwwnwwwwwNwwb", // the network goes away and comes back
		"IwwwwwwwwtttTTTb",
		"LIwwwwwbbb",
		"IwwwwwwwwzzzZZZjJb",
		"IwwwwwwwwqvwwBwfFvwwb",     // transferred, and the target rings
		"IwwwwwwwwVwwwwwhwrwb",      // transferred out of the house
		"IwwwwwwwwHqKwwkwwwb",       // semi-attended: the consulted phone still rings
		"IwwwwwwwwHKwwwwwkwww@xuyb", // attended
		"1WwwwwwB",                  // every phone rings, one hears whose call it is
		"1qWwww2wwwwb",              // picked up while all ring
		"lq1Ww3wwwMlQwb",            // with a lamp on
		"P4WW@pabN",                 // a reliable 180 whose PRACK is lost
		"eDwwwwpwwwwb", "ePwwwb",    // reliable far end
		"Swwwwwwww8@n8xNwwb", // our refresh of the session is not answered
		"Swwwwwwww8uxXUwb",
		"567q1wwww5w6wwwb",           // agents come and go by codes while phones ring
		"IwwwwwwwwhHwwHhrRw@xuUXfYw", // both hold, and the phone speaks out of turn
		"O1wwwwwwwwwvcwwb",           // a second device of the extension
	} {
		f.Add([]byte(script))
	}
	cfg := cityConfig("101", "102", "103")
	dir := f.TempDir()
	cfg.Announcement.File, cfg.Announcement.SHA256 = dir+"/a.wav", writeWAVAt(f, dir+"/a.wav", briefWords())
	cfg.Queues[0].RingTimeout = 4 * time.Second
	cfg.Queues[0].MaxWait, cfg.Queues[0].Members = 20*time.Second, []string{"101"}
	all := cfg.Queues[0]
	all.Name, all.Strategy, all.Members, all.Whisper = "all", "ring-all", []string{"101", "102", "103"}, dir+"/w.wav"
	writeWAVAt(f, all.Whisper, whisperWords())
	cfg.Queues = append(cfg.Queues, all)
	cfg.Numbers = append(cfg.Numbers, pbx.NumberConfig{Match: "+48914245222", Target: "queue:all"})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 40 {
			script = script[:40]
		}
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, cfg)
			r.lenient = true
			defer r.finish()
			p := player{r: r, seq: 100}
			r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
			for _, phone := range r.phones {
				phone.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
			}
			for _, b := range script {
				p.play(b)
			}
			r.net.Drop(nil)
			for range 2 { // what rings late is ended late
				p.collect()
				for _, l := range p.legs() {
					l.call.Hangup()
				}
				time.Sleep(40 * time.Second)
			}
			for _, l := range p.legs() { // a BYE of its own CSeq may be too low after raw ones
				p.raw(l, "BYE", nil)
			}
			time.Sleep(2 * time.Minute) // every timer of SIP, and the media timeout
			if n := r.sw.Calls(); n != 0 {
				t.Errorf("%d calls do not end, after %q\n%s", n, script, r.ladder)
			}
			for _, rec := range r.records() {
				if rec.Cause == "" || rec.Recording.Outcome == "" {
					t.Errorf("after %q: record %+v", script, rec)
				}
			}
		})
	})
}
