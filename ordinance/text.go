package ordinance

// The texts of the ordinance in force by default, byte for byte: each run of
// white space of the source is one space, the quotation marks are not part of
// the text, and nothing is corrected. In particular there is no comma before
// „prosimy", and the date of the act in ChatNotice differs from the date in
// the ordinance's own preamble.
const (
	// AnnouncementText precedes every incoming call (Zarz. 284/17 §1 ust. 4,
	// S1.4-a).
	AnnouncementText = "Witamy w Centrum Informacji Mieszkańców Urzędu Miasta Szczecin. " +
		"Informujemy, że w trosce o zapewnienie najwyższej jakości usług wszystkie rozmowy są nagrywane. " +
		"Jeżeli nie wyrażacie Państwo zgody na ich nagrywanie prosimy o przerwanie połączenia."

	// AnnouncementTextSHA256 is the hash of AnnouncementText in UTF-8.
	AnnouncementTextSHA256 = "714e8d5385100c6ab9a94a4bed222ed6489d17a821495152f424ff9319b72291"

	// ChatNotice precedes every chat (Zarz. 284/17 §1 ust. 5, S1.5-a).
	ChatNotice = "Kontakt z Urzędem Miasta Szczecin za pośrednictwem usługi czat wiąże się " +
		"z przetwarzaniem przez Urząd podanych danych osobowych zgodnie z ustawą " +
		"z dnia 29 sierpnia 1997 r. o ochronie danych osobowych. " +
		"Jeżeli nie wyrażacie Państwo zgody na przetwarzanie danych osobowych " +
		"prosimy o przerwanie korzystania z usługi czat."

	// ChatNoticeSHA256 is the hash of ChatNotice in UTF-8.
	ChatNoticeSHA256 = "6fd923f7510bb0ce8ece3e1448efc8630ed5cf5583e3d8603f2603349100d40a"
)
