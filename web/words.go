package web

import (
	"encoding/json"
	"fmt"
	"strings"
)

// language is one of the two in which pages are: Polish by default, English
// under /en/.
type language string

const (
	polishLang  language = "pl"
	englishLang language = "en"
)

// words is a catalogue: key to text, or to the forms of a text that counts.
type words map[string]phrase

// phrase is a text with verbs of fmt; of one that counts, the forms: one, few,
// many. English has one and many.
type phrase struct{ one, few, many string }

func (p *phrase) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &p.many)
	}
	var forms struct{ One, Few, Many string }
	err := json.Unmarshal(b, &forms)
	*p = phrase{forms.One, forms.Few, forms.Many}
	return err
}

// readWords reads the catalogue of a language, which is part of the program.
func readWords(lang language) words {
	b, err := embedded.ReadFile("words/" + string(lang) + ".json")
	var w words
	if err == nil {
		err = json.Unmarshal(b, &w)
	}
	if err != nil {
		panic(fmt.Sprintf("catalogue %s: %v", lang, err))
	}
	return w
}

// say returns the text of a key, filled in. An unknown key is shown as it is: a
// test keeps that from happening.
func (w words) say(key string, args ...any) string {
	p, ok := w[key]
	if !ok {
		return key
	}
	text := p.many
	if p.one != "" && len(args) > 0 {
		if n, ok := args[0].(int); ok {
			text = p.form(n)
		}
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// form chooses as Polish does: 1, then 2 to 4 but not 12 to 14, then the rest.
func (p phrase) form(n int) string {
	switch {
	case n == 1:
		return p.one
	case p.few != "" && n%10 >= 2 && n%10 <= 4 && (n%100 < 12 || n%100 > 14):
		return p.few
	}
	return p.many
}

// has tells whether there is a text.
func (w words) has(key string) bool { _, ok := w[key]; return ok }

// inLanguage splits the language off a path: /en/konto is /konto in English.
func inLanguage(path string) (language, string) {
	if path == "/en" {
		return englishLang, "/"
	}
	if rest, ok := strings.CutPrefix(path, "/en/"); ok {
		return englishLang, "/" + rest
	}
	return polishLang, path
}

// href is a path of ours in a language.
func (l language) href(path string) string {
	if l == englishLang {
		return "/en" + path
	}
	return path
}
