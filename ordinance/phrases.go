package ordinance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// The most that the phrases of a queue can say as a number.
const (
	MaxSpokenPlace = 50 // and "place-more" beyond
	MaxSpokenWait  = 30 // minutes, and "wait-more" beyond
)

// Phrase is one of the pieces of which the sentences to waiting callers are made.
type Phrase struct {
	Text string
	ALaw []byte // 8 kHz, mono; silent for 60 ms at both ends
}

// QueuePhrases returns the embedded pieces, checked against their manifest:
// "place" and after it "place-1" to "place-50", or alone "place-more"; "wait" and
// after it "wait-less" (than a minute), "wait-1" to "wait-30" or "wait-more";
// "patience". No text of the ordinance is among them.
func QueuePhrases() (map[string]Phrase, error) {
	list, err := queuePhrases(spoken)
	if err != nil {
		return nil, fmt.Errorf("zapowiedzi kolejki: %w", err)
	}
	return list, nil
}

func queuePhrases(fsys fs.FS) (map[string]Phrase, error) {
	raw, err := fs.ReadFile(fsys, "audio/queue.json")
	if err != nil {
		return nil, fmt.Errorf("nie można odczytać manifestu: %w", err)
	}
	var m struct {
		Version     string `json:"version"`
		Audio       string `json:"audio"`
		AudioSHA256 string `json:"audio_sha256"`
		TextSHA256  string `json:"text_sha256"`
		Parts       []struct {
			Name    string `json:"name"`
			Text    string `json:"text"`
			From    int    `json:"from"`
			Samples int    `json:"samples"`
		} `json:"parts"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("manifest queue.json jest uszkodzony: %w", err)
	}
	if m.Version == "" || m.Audio == "" {
		return nil, errors.New("manifest queue.json jest niepełny")
	}
	audio, err := fs.ReadFile(fsys, "audio/"+m.Audio)
	if err != nil {
		return nil, fmt.Errorf("nie można odczytać nagrania: %w", err)
	}
	if got := hexSHA256(audio); got != m.AudioSHA256 {
		return nil, fmt.Errorf("nagranie zostało zmienione: skrót SHA-256 %s zamiast %s", got, m.AudioSHA256)
	}
	var texts strings.Builder
	list := map[string]Phrase{}
	for _, p := range m.Parts {
		fmt.Fprintf(&texts, "%s|%s\n", p.Name, p.Text)
		if p.From < 0 || p.Samples <= 0 || p.Samples > len(audio)-p.From {
			return nil, fmt.Errorf("część %q leży poza nagraniem", p.Name)
		}
		list[p.Name] = Phrase{p.Text, audio[p.From:][:p.Samples:p.Samples]}
	}
	if got := hexSHA256([]byte(texts.String())); got != m.TextSHA256 {
		return nil, fmt.Errorf("teksty nie zgadzają się z manifestem: skrót %s zamiast %s", got, m.TextSHA256)
	}
	for _, name := range phraseNames() {
		if list[name].ALaw == nil {
			return nil, fmt.Errorf("brak części %q", name)
		}
	}
	return list, nil
}

func phraseNames() []string {
	names := []string{"place", "place-more", "wait", "wait-less", "wait-more", "patience"}
	for n := range MaxSpokenPlace {
		names = append(names, fmt.Sprintf("place-%d", n+1))
	}
	for n := range MaxSpokenWait {
		names = append(names, fmt.Sprintf("wait-%d", n+1))
	}
	return names
}
