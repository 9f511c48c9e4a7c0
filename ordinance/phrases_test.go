package ordinance

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/zaf/g711"
)

func TestQueuePhrases(t *testing.T) {
	list, err := QueuePhrases()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"place-1": "jeden.", "place-2": "dwa.", "place-13": "trzynaście.", "place-20": "dwadzieścia.", "place-47": "czterdzieści siedem.", "place-50": "pięćdziesiąt.",
		"wait-1": "jedna minuta.", "wait-2": "dwie minuty.", "wait-4": "cztery minuty.", "wait-5": "pięć minut.", "wait-11": "jedenaście minut.", "wait-12": "dwanaście minut.",
		"wait-14": "czternaście minut.", "wait-21": "dwadzieścia jeden minut.", "wait-22": "dwadzieścia dwie minuty.", "wait-24": "dwadzieścia cztery minuty.",
		"wait-25": "dwadzieścia pięć minut.", "wait-30": "trzydzieści minut.", "wait-less": "mniej niż minuta.", "wait-more": "ponad trzydzieści minut.",
		"patience": "Wszyscy konsultanci są zajęci. Prosimy czekać.",
	} {
		if got := list[name].Text; got != want {
			t.Errorf("%s says %q, want %q", name, got, want)
		}
	}
	total, texts := 0, map[string]string{}
	for name, p := range list {
		if other, ok := texts[p.Text]; ok {
			t.Errorf("%s and %s say the same", name, other)
		}
		texts[p.Text] = name
		total += len(p.ALaw)
		measure(t, name, p.ALaw)
	}
	if total > 850_000 || len(list) != len(phraseNames()) {
		t.Errorf("%d bytes of audio in the binary, %d phrases", total, len(list))
	}
}

// measure holds a phrase against the level of the announcement; both its ends must
// be silent, so that it may be joined to any other without a click.
func measure(t *testing.T, name string, alaw []byte) {
	t.Helper()
	const silence = 50 * sampleRate / 1000
	var peak, power, active float64
	for i, b := range alaw {
		v := math.Abs(float64(g711.DecodeAlawFrame(b))) / (1 << 15)
		if (i < silence || i >= len(alaw)-silence) && v > 0.001 {
			t.Errorf("%s: %.4f of full scale at sample %d of %d", name, v, i, len(alaw))
			break
		}
		peak = max(peak, v)
	}
	for i := 0; i+160 <= len(alaw); i += 160 {
		var p float64
		for _, b := range alaw[i : i+160] {
			p += math.Pow(float64(g711.DecodeAlawFrame(b))/(1<<15), 2) / 160
		}
		if 10*math.Log10(p+1e-12) > -40 {
			power += p
			active++
		}
	}
	if db := 20 * math.Log10(peak); db < -3.5 || db > -2.5 {
		t.Errorf("%s: peak %.1f dBFS", name, db)
	}
	// A word of one syllable has no quieter ones.
	if db := 10 * math.Log10(power/active); db < -18.5 || db > -11.5 {
		t.Errorf("%s: speech at %.1f dBFS", name, db)
	}
	if ms := len(alaw) / 8; ms < 350 || ms > 4500 {
		t.Errorf("%s: %d ms", name, ms)
	}
}

func TestAlteredQueuePhrases(t *testing.T) {
	manifest, err := spoken.ReadFile("audio/queue.json")
	if err != nil {
		t.Fatal(err)
	}
	audio, err := spoken.ReadFile("audio/queue.al")
	if err != nil {
		t.Fatal(err)
	}
	edit := func(old, new string) []byte {
		out := bytes.Replace(manifest, []byte(old), []byte(new), 1)
		if bytes.Equal(out, manifest) {
			t.Fatalf("the manifest has no %q", old)
		}
		return out
	}
	altered := bytes.Clone(audio)
	altered[1000] ^= 1
	for _, c := range []struct {
		manifest, audio []byte
		want            string
	}{
		{manifest, audio, ""},
		{nil, audio, "nie można odczytać manifestu"},
		{manifest, nil, "nie można odczytać nagrania"},
		{manifest, altered, "nagranie zostało zmienione"},
		{manifest[:100], audio, "uszkodzony"},
		{edit(`"version"`, `"versions"`), audio, "niepełny"},
		{edit("dwie minuty", "trzy minuty"), audio, "teksty nie zgadzają się"},
		{edit(`"from": 0`, `"from": -1`), audio, "poza nagraniem"},
		{edit(`"from": 0`, fmt.Sprintf(`"from": %d`, len(audio))), audio, "poza nagraniem"},
	} {
		fsys := fstest.MapFS{}
		if c.manifest != nil {
			fsys["audio/queue.json"] = &fstest.MapFile{Data: c.manifest}
		}
		if c.audio != nil {
			fsys["audio/queue.al"] = &fstest.MapFile{Data: c.audio}
		}
		list, err := queuePhrases(fsys)
		if c.want == "" && err != nil || c.want != "" && (list != nil || err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
}
