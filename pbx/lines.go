package pbx

import "sync"

// lines counts the legs of each phone, so that "busy" is what our own dialogs
// say. It is safe for concurrent use.
type lines struct {
	mu       sync.Mutex
	of       map[*leg]string
	legs     map[string]int // by extension
	placed   map[string]int // calls to the outside, by extension
	onChange func(ext string, delta int)
}

func newLines(onChange func(ext string, delta int)) *lines {
	return &lines{of: map[*leg]string{}, legs: map[string]int{}, placed: map[string]int{}, onChange: onChange}
}

// add counts l, once.
func (n *lines) add(l *leg) {
	n.mu.Lock()
	_, known := n.of[l]
	if !known && l.ext != "" {
		n.of[l] = l.ext
		n.legs[l.ext]++
		if l.outside {
			n.placed[l.ext]++
		}
	}
	n.mu.Unlock()
	if !known && l.ext != "" {
		n.onChange(l.ext, +1)
	}
}

// drop takes l off the count if it is on it.
func (n *lines) drop(l *leg) {
	n.mu.Lock()
	ext, known := n.of[l]
	if known {
		delete(n.of, l)
		if n.legs[ext]--; n.legs[ext] == 0 {
			delete(n.legs, ext)
		}
		if l.outside {
			if n.placed[ext]--; n.placed[ext] == 0 {
				delete(n.placed, ext)
			}
		}
	}
	n.mu.Unlock()
	if known {
		n.onChange(ext, -1)
	}
}

// busy counts the legs of ext.
func (n *lines) busy(ext string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.legs[ext]
}

// outgoing counts the calls to the outside that ext has placed and that are
// still up.
func (n *lines) outgoing(ext string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.placed[ext]
}
