package store

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// WriteQueueCSV writes one line for each day, hour and queue. Spreadsheets of
// this country read it by a double click: UTF-8 with its mark, semicolons,
// lines that end as RFC 4180 has them; durations are whole seconds.
func WriteQueueCSV(w io.Writer, days []DayStatistics) error {
	header := []string{"dzień", "godzina", "kanał", "kolejka", "zgłoszone", "odebrane", "porzucone w kolejce",
		"rozłączone w komunikacie", "zamknięte", "przepełnienie", "inne", "odebrane do 20 s", "suma oczekiwania [s]",
		"najdłuższe oczekiwanie [s]", "oczekiwanie porzuconych [s]", "rozmowy [s]"}
	return writeCSV(w, header, func(line func(...string)) {
		for _, d := range days {
			for _, q := range d.Queues {
				line(d.Day.String(), hourLabel(q.Hour), q.Channel, q.Queue, count(q.Offered), count(q.Answered), count(q.Abandoned),
					count(q.Announcement), count(q.Closed), count(q.Overflowed), count(q.Failed), count(q.InTime()), seconds(q.WaitSum),
					seconds(q.WaitMax), seconds(q.AbandonedSum), seconds(q.Talk))
			}
		}
	})
}

// WriteAgentCSV writes one line for each day, hour and agent, in the form of
// WriteQueueCSV.
func WriteAgentCSV(w io.Writer, days []DayStatistics) error {
	header := []string{"dzień", "godzina", "kanał", "stanowisko", "zaproponowane", "odebrane", "nieodebrane", "odrzucone",
		"wychodzące", "rozmowy [s]"}
	return writeCSV(w, header, func(line func(...string)) {
		for _, d := range days {
			for _, a := range d.Agents {
				line(d.Day.String(), hourLabel(a.Hour), a.Channel, a.Agent, count(a.Offered), count(a.Answered), count(a.Unanswered),
					count(a.Refused), count(a.Outgoing), seconds(a.Talk))
			}
		}
	})
}

func writeCSV(w io.Writer, header []string, lines func(line func(...string))) error {
	b := bufio.NewWriter(w)
	b.WriteString("\ufeff") // its error is Flush's
	c := csv.NewWriter(b)
	c.Comma, c.UseCRLF = ';', true
	write := func(fields ...string) {
		for i, f := range fields {
			fields[i] = inert(f)
		}
		c.Write(fields) // its error is Error's
	}
	write(header...)
	lines(write)
	c.Flush()
	if err := c.Error(); err != nil {
		return fmt.Errorf("write CSV: %w", err)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write CSV: %w", err)
	}
	return nil
}

// inert keeps a spreadsheet from taking a name for a formula.
func inert(field string) string {
	if field != "" && strings.ContainsRune("=+-@\t\r", rune(field[0])) {
		return "'" + field
	}
	return field
}

func hourLabel(h int) string { return fmt.Sprintf("%02d:00", h) }
func count(n int) string     { return strconv.Itoa(n) }
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64(d.Round(time.Second)/time.Second), 10)
}
