//go:build !linux || !(amd64 || arm64)

package media

import (
	"errors"
	"fmt"
	"runtime"
)

// NewLoop fails with errors.ErrUnsupported: the loop engine needs Linux on amd64
// or arm64. NewPortable works everywhere.
func NewLoop(LoopConfig) (Engine, error) {
	return nil, fmt.Errorf("media: loop engine on %s/%s: %w", runtime.GOOS, runtime.GOARCH, errors.ErrUnsupported)
}
