package media

// Prompt is audio to be sent: 8 kHz mono, encoded once in both laws. It is
// immutable.
type Prompt struct {
	alaw, ulaw []byte
}
