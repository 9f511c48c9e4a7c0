// Package ordinance is the law as code: Zarządzenie Nr 284/17 Prezydenta
// Miasta Szczecin of 27 June 2017. It holds the exact texts, the recorded
// announcement and the switch's other prompts, the six-month rule, the calendar
// and the notion of a caller whose number is identifiable.
//
// It guarantees that equal input gives equal output on every machine: it embeds
// the time-zone data and the audio, opens no file of the host, reads no clock
// and starts no goroutine. The audio is verified against its manifest whenever
// it is asked for.
//
// Its limits: it knows the calendar of Poland and the notation of Polish
// numbers only, and it cannot hear whether a recording says what its text says.
package ordinance
