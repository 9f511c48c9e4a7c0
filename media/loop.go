package media

import (
	"log/slog"
	"net/netip"
	"time"
)

// LoopConfig configures NewLoop. Fields that PortableConfig has too mean the
// same.
type LoopConfig struct {
	Addr             netip.Addr
	PortMin, PortMax uint16
	Drain            time.Duration
	Timeout          time.Duration
	DSCP             int
	CNAME            string
	Log              *slog.Logger
	// Loops is how many packet loops share the streams, each taking up to one
	// processor; 0 means one for every four processors, and at least one.
	Loops int
}

// Portable is the same for the portable engine, over real sockets.
func (cfg LoopConfig) Portable() PortableConfig {
	return PortableConfig{
		Addr: cfg.Addr, PortMin: cfg.PortMin, PortMax: cfg.PortMax, Drain: cfg.Drain,
		Timeout: cfg.Timeout, DSCP: cfg.DSCP, CNAME: cfg.CNAME, Log: cfg.Log,
	}
}
