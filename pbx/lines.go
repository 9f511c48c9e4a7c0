package pbx

import "sync"

// lines counts the legs of each phone, so that "busy" is what our own dialogs
// say. It is safe for concurrent use.
type lines struct {
	mu       sync.Mutex
	of       map[*leg]string
	legs     map[string]int  // by extension
	placed   map[string]int  // calls to the outside, by extension
	charged  map[*leg]string // legs to the outside that no phone's leg stands for
	onChange func(ext string, delta int)
}

func newLines(onChange func(ext string, delta int)) *lines {
	return &lines{of: map[*leg]string{}, legs: map[string]int{}, placed: map[string]int{}, charged: map[*leg]string{}, onChange: onChange}
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

// charge counts l, a leg to the outside, as a call of ext until it ends: one that
// ext has passed somebody on to, or has passed on.
func (n *lines) charge(l *leg, ext string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.charged[l]; !known && ext != "" {
		n.charged[l] = ext
		n.placed[ext]++
	}
}

// discharge takes a call to the outside off ext. The mutex is held.
func (n *lines) discharge(ext string) {
	if n.placed[ext]--; n.placed[ext] == 0 {
		delete(n.placed, ext)
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
			n.discharge(ext)
		}
	}
	if by, ok := n.charged[l]; ok {
		delete(n.charged, l)
		n.discharge(by)
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
