package web

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func sample() Snapshot {
	now := time.Date(2026, 11, 23, 9, 15, 0, 0, time.UTC)
	return Snapshot{
		At: now, Started: now.Add(-26 * time.Hour),
		Alarms:    []Alarm{{ID: "recorder-failed", Text: "Rejestrator nie zapisuje", Time: now.Add(-time.Minute)}},
		Calls:     []Call{{ID: "ab12", Direction: "incoming", Phase: "talking", Began: now.Add(-90 * time.Second), Since: now.Add(-61 * time.Second), Trunk: "operator", Queue: "cim", Extension: "101", Recorded: true}},
		Trunks:    []Trunk{{Name: "operator", Up: true, Calls: 1, MaxCalls: 60, LastSeen: now}, {Name: "zapasowy", Err: "no answer <&>"}},
		Phones:    []Phone{{Extension: "101", Devices: 1, Calls: 1}, {Extension: "102"}},
		Queues:    []Queue{{Name: "cim", Open: true, Waiting: 2, Longest: 75 * time.Second}},
		Agents:    []Agent{{Extension: "101", State: "talking", Since: now}, {Extension: "102", State: "away", Reason: "unregistered", Since: now}},
		Recorder:  Recorder{Active: 1, Outcomes: map[string]uint64{"ok": 12, "failed": 1}, Dropped: map[string]uint64{"ring": 3}, Incidents: 1, Latest: []Incident{{At: now, Call: "cd34", Direction: "incoming", Outcome: "failed", Reason: "disk full"}}},
		Vault:     Vault{Free: 12_500_000_000, Total: 100_000_000_000, DaysLeft: 210, NextSweep: now.Add(12 * time.Hour)},
		Announced: Announced{Version: "284/17", TextSHA256: "714e", AudioSHA256: "4720", Duration: 17307 * time.Millisecond},
		Media:     Media{Engine: "portable", Streams: 2, Ports: 5000, Received: 1000},
		Began:     map[string]int64{"incoming": 20}, Ended: map[string]int64{"hung_up_in_announcement": 4},
		Guard: map[string]uint64{"banned": 7},
	}
}

func get(t *testing.T, h http.Handler, method, path string) (*http.Response, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	res := w.Result()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func handler(s Snapshot) http.Handler {
	return NewStatus(StatusConfig{Snapshot: func() Snapshot { return s }, Version: "1.2.3"})
}

func TestStatusPage(t *testing.T) {
	res, body := get(t, handler(sample()), "GET", "/stan")
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%s %s", res.Status, res.Header)
	}
	for _, want := range []string{
		`<html lang="pl">`, `http-equiv="refresh"`, "Są alarmy", "Rejestrator nie zapisuje", "rozmowa", "1 min 1 s", "1 min 30 s", "działa", "nie odpowiada: no answer &lt;&amp;&gt;",
		"telefon niezarejestrowany", "rozłączono w trakcie komunikatu", "12,5 GB z 100,0 GB, wystarczy na 210 dni", "23.11.2026, 10:15:00", "brak nagrania – awaria", "Trwa 1.", "Incydenty: najnowsze", "disk full", "cd34",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	wellFormed(t, body)
	if strings.Contains(body, "Certyfikat SIP") {
		t.Error("the page names a certificate that there is not")
	}
	if strings.Contains(body, "<script") || strings.Contains(body, "style=") || strings.Contains(body, "http://") || strings.Contains(body, "https://") {
		t.Error("the page has a script, an inline style or a foreign address")
	}
	calm := sample()
	calm.Alarms, calm.Calls, calm.Ended = nil, nil, nil
	if _, body := get(t, handler(calm), "GET", "/stan"); !strings.Contains(body, "Brak alarmów") || !strings.Contains(body, "Nie ma połączeń") {
		t.Error("a calm switch does not say so")
	}
	calm.Certificate = calm.At.Add(90 * 24 * time.Hour)
	if _, body := get(t, handler(calm), "GET", "/stan"); !strings.Contains(body, "Certyfikat SIP ważny do</dt><dd>21.02.2027, 10:15:00</dd>") {
		t.Error("the page does not say when the certificate ends")
	}
	calm.Certificate = calm.At
	if _, body := get(t, handler(calm), "GET", "/stan"); !strings.Contains(body, `<span class="zle">wygasł 23.11.2026, 10:15:00</span>`) {
		t.Error("the page does not say that the certificate has ended")
	}
	calm.NotReady = []string{"brak pliku komunikatu x.wav", "draining", "not running", "listener down: udp://192.0.2.10:5060", "not recording: no space"}
	if _, body := get(t, handler(calm), "GET", "/stan"); !strings.Contains(body, "nie przyjmuje połączeń") || !strings.Contains(body, "brak pliku komunikatu") ||
		!strings.Contains(body, "kończy pracę") || !strings.Contains(body, "dopiero rusza") || !strings.Contains(body, "gniazdo SIP nie działa: udp://192.0.2.10:5060") ||
		!strings.Contains(body, "bez nagrania rozmów się nie przyjmuje: no space") {
		t.Error("a switch that is not ready does not say so")
	}
}

// wellFormed holds the page against XML rules but for void elements: each
// element is closed, tables have captions and headings have order.
func wellFormed(t *testing.T, body string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(body))
	d.Strict = false
	d.AutoClose = []string{"meta", "link"}
	d.Entity = xml.HTMLEntity
	var open []string
	level, captions, tables := 0, 0, 0
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			open = append(open, tok.Name.Local)
			switch n := tok.Name.Local; n {
			case "table":
				tables++
			case "caption":
				captions++
			case "h1", "h2", "h3":
				if l := int(n[1] - '0'); l > level+1 {
					t.Errorf("%s follows h%d", n, level)
				} else {
					level = l
				}
			case "th":
				if len(tok.Attr) == 0 || tok.Attr[0].Name.Local != "scope" {
					t.Error("th without scope")
				}
			}
		case xml.EndElement:
			if len(open) == 0 || open[len(open)-1] != tok.Name.Local {
				t.Fatalf("%s closes %v", tok.Name.Local, open)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) != 0 || tables == 0 || captions != tables {
		t.Errorf("left open %v; %d tables with %d captions", open, tables, captions)
	}
}

// TestRefreshCanBeStopped: a page that reloads by itself is lost on who reads
// slowly or by ear.
func TestRefreshCanBeStopped(t *testing.T) {
	_, body := get(t, handler(sample()), "GET", "/stan")
	if !strings.Contains(body, `href="/stan?bez-odswiezania"`) {
		t.Error("no link stops it")
	}
	_, body = get(t, handler(sample()), "GET", "/stan?bez-odswiezania")
	if strings.Contains(body, "http-equiv") || !strings.Contains(body, `href="/stan"`) {
		t.Error("it still refreshes, or no link starts it again")
	}
	wellFormed(t, body)
}

// TestNothingPersonal plants numbers and a name wherever the snapshot has free
// text, and looks for them in all that is served.
func TestNothingPersonal(t *testing.T) {
	const planted = `dial "Jan Kowalski" <sip:+48601234567@203.0.113.7>: 603; 91 424 50 00, +48 602-345-678, 0048914245111; tel:601999888`
	s := sample()
	s.NotReady = []string{planted}
	s.Alarms[0].Text, s.Trunks[1].Err, s.Agents[1].Reason = planted, planted, planted
	s.Recorder.Err, s.Vault.SweepErr, s.Announced.Err = planted, planted, planted
	for _, path := range []string{"/stan", "/stan.json", "/metrics", "/healthz", "/readyz"} {
		_, body := get(t, handler(s), "GET", path)
		for _, secret := range []string{"Kowalski", "601234567", "424", "345", "914245111", "601999888"} {
			if strings.Contains(body, secret) {
				t.Errorf("%s shows %s", path, secret)
			}
		}
		if path == "/stan" && !strings.Contains(body, "203.0.113.7") {
			t.Error("what is not personal is gone too")
		}
	}
	if s.Alarms[0].Text != planted {
		t.Error("the snapshot of the caller was changed")
	}
	for _, text := range []string{"2026-11-23 10:15:00", "198.51.100.7:5060", "8e7128014557852e45f414aaea2b3596", "open /srv/days/2026-05-20/recordings: no space left on device", "SIP 403"} {
		if got := anonymous(text); got != text {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}

func TestStatusJSONAndProbes(t *testing.T) {
	s := sample()
	_, body := get(t, handler(s), "GET", "/stan.json")
	var got struct {
		Version string
		Calls   []struct{ Phase string }
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.Version != "1.2.3" || len(got.Calls) != 1 || got.Calls[0].Phase != "talking" {
		t.Errorf("%+v, %v", got, err)
	}
	if res, body := get(t, handler(s), "GET", "/readyz"); res.StatusCode != 200 || body != "ready\n" {
		t.Errorf("readyz %s %q", res.Status, body)
	}
	s.NotReady = []string{"draining"}
	if res, body := get(t, handler(s), "GET", "/readyz"); res.StatusCode != 503 || !strings.Contains(body, "draining") || res.Header.Get("Retry-After") == "" {
		t.Errorf("readyz %s %q", res.Status, body)
	}
	if res, _ := get(t, handler(s), "GET", "/healthz"); res.StatusCode != 200 {
		t.Errorf("healthz %s", res.Status)
	}
}

func TestMetrics(t *testing.T) {
	res, body := get(t, handler(sample()), "GET", "/metrics")
	if res.StatusCode != 200 {
		t.Fatalf("%s\n%s", res.Status, body)
	}
	for _, want := range []string{
		`centralka_ready 1`, `centralka_calls{direction="incoming",phase="talking"} 1`, `centralka_trunk_up{trunk="zapasowy"} 0`,
		`centralka_queue_waiting{queue="cim"} 2`, `centralka_queue_longest_wait_seconds{queue="cim"} 75`, `centralka_agents{state="away"} 1`,
		`centralka_recordings_total{outcome="failed"} 1`, `centralka_recorder_dropped_total{cause="ring"} 3`, `centralka_calls_ended_total{cause="hung_up_in_announcement"} 4`,
		`centralka_build_info{version="1.2.3"} 1`, `centralka_alarms{id="recorder-failed"} 1`, `centralka_phones_registered 1`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("metrics lack %s", want)
		}
	}
}

func TestHeadersAndMethods(t *testing.T) {
	h := handler(sample())
	for _, path := range []string{"/stan", "/stan.css", "/stan.json", "/metrics", "/healthz", "/readyz"} {
		res, body := get(t, h, "GET", path)
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		} {
			if !strings.Contains(res.Header.Get(name), want) {
				t.Errorf("%s: %s is %q", path, name, res.Header.Get(name))
			}
		}
		if body == "" {
			t.Errorf("%s is empty", path)
		}
		if res, _ := get(t, h, "HEAD", path); res.StatusCode != 200 {
			t.Errorf("HEAD %s: %s", path, res.Status)
		}
		if res, _ := get(t, h, "POST", path); res.StatusCode != 405 {
			t.Errorf("POST %s: %s", path, res.Status)
		}
	}
	if res, _ := get(t, h, "GET", "/nothing"); res.StatusCode != 404 {
		t.Errorf("an unknown page: %s", res.Status)
	}
	if res, _ := get(t, h, "GET", "/"); res.StatusCode != 303 || res.Header.Get("Location") != "/stan" {
		t.Errorf("the root: %s", res.Status)
	}
}

func TestWordsAndNumbers(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 59 * time.Second: "59 s", 3*time.Minute + 12*time.Second: "3 min 12 s", 90 * time.Minute: "1 h 30 min", 72 * time.Hour: "3 dni",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1500: "1,5 kB", 12_500_000_000: "12,5 GB", 7_000_000_000_000_000: "7000,0 TB"} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %q, want %q", n, got, want)
		}
	}
}
