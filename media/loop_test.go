//go:build linux && (amd64 || arm64)

package media

import (
	"testing"
)

// buildLoop makes a loop engine of n loops from what the rig configures.
func buildLoop(n int) newEngine {
	return func(c PortableConfig) (Engine, error) {
		return NewLoop(LoopConfig{
			Addr: c.Addr, PortMin: c.PortMin, PortMax: c.PortMax, Drain: c.Drain, Timeout: c.Timeout,
			DSCP: c.DSCP, CNAME: c.CNAME, Log: c.Log, Loops: n,
		})
	}
}

func TestLoop(t *testing.T) { testEngine(t, buildLoop(1), sockets) }

// TestLoops has every stream begin on another loop than the one before.
func TestLoops(t *testing.T) { testEngine(t, buildLoop(3), sockets) }
