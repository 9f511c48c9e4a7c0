package desk

// HoursConfig is one [[hours]]: when a queue is open, in Warsaw time.
type HoursConfig struct {
	// Name, used by queues.
	Name string `toml:"name"`
	// Opening times: "mon-fri 07:30-15:30", "sat 09:00-12:00".
	Week []string `toml:"week"`
	// Calendar of public holidays on which it is closed: "pl" or "" for none.
	Holidays string `toml:"holidays"`
}
