package web

import (
	"slices"

	"centralka/ordinance"
	"centralka/pbx"
)

// The pages of telephony show what the configuration file owns, with the state
// it is in and what its check found; they change nothing.

// telephonyView is the own part of all of them.
type telephonyView struct {
	pbx.Config
	Doubts []string
	Phones []phoneRow
	Trunks []trunkRow
	Queues []queueRow
	Texts  []textRow
}

type phoneRow struct {
	pbx.ExtensionConfig
	Phone
	Agent Agent
}

type trunkRow struct {
	pbx.TrunkConfig
	Trunk
}

type queueRow struct {
	pbx.QueueConfig
	Queue
}

type textRow struct {
	Key, Text, Version string
	TextSHA, AudioSHA  string
	Err                string
}

// telephony reads the configuration that runs, without its secrets.
func (s *Staff) telephony() telephonyView {
	v := telephonyView{Config: s.cfg.Telephony(), Doubts: s.cfg.Doubts()}
	v.Secrets = pbx.Secrets{}
	return v
}

func (s *Staff) phonesPage(x *exchange) error {
	v, now := s.telephony(), s.cfg.Snapshot()
	for _, e := range v.Extensions {
		row := phoneRow{ExtensionConfig: e}
		if i := slices.IndexFunc(now.Phones, func(p Phone) bool { return p.Extension == e.Number }); i >= 0 {
			row.Phone = now.Phones[i]
		}
		if i := slices.IndexFunc(now.Agents, func(a Agent) bool { return a.Extension == e.Number }); i >= 0 {
			row.Agent = now.Agents[i]
		}
		v.Phones = append(v.Phones, row)
	}
	return s.show(x, "phones", v)
}

func (s *Staff) trunksPage(x *exchange) error {
	v, now := s.telephony(), s.cfg.Snapshot()
	for _, t := range v.Config.Trunks {
		row := trunkRow{TrunkConfig: t}
		if i := slices.IndexFunc(now.Trunks, func(o Trunk) bool { return o.Name == t.Name }); i >= 0 {
			row.Trunk = now.Trunks[i]
			row.Trunk.Err = anonymous(row.Trunk.Err)
		}
		v.Trunks = append(v.Trunks, row)
	}
	return s.show(x, "trunks", v)
}

func (s *Staff) queuesPage(x *exchange) error {
	v, now := s.telephony(), s.cfg.Snapshot()
	for _, q := range v.Config.Queues {
		row := queueRow{QueueConfig: q}
		if i := slices.IndexFunc(now.Queues, func(o Queue) bool { return o.Name == q.Name }); i >= 0 {
			row.Queue = now.Queues[i]
		}
		v.Queues = append(v.Queues, row)
	}
	return s.show(x, "queues", v)
}

// textsPage shows the texts in force with the hashes that bind their audio
// (S1.4-a).
func (s *Staff) textsPage(x *exchange) error {
	v := s.telephony()
	add := func(key string, a ordinance.Announcement, err error) {
		row := textRow{Key: key, Text: a.Text, Version: a.Version, TextSHA: a.TextSHA256, AudioSHA: a.AudioSHA256}
		if err != nil {
			row.Err = err.Error()
		}
		v.Texts = append(v.Texts, row)
	}
	a, err := ordinance.Statutory()
	add("texts.announcement", a, err)
	for _, name := range []string{"closed", "busy"} {
		a, err := ordinance.Prompt(name)
		add("texts."+name, a, err)
	}
	if own := s.cfg.Snapshot().Announced; v.Announcement.File != "" { // a recording of the office's own
		v.Texts[0].Version, v.Texts[0].AudioSHA, v.Texts[0].Err = own.Version, own.AudioSHA256, own.Err
	}
	return s.show(x, "texts", v)
}
