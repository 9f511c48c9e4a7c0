package media

import "github.com/zaf/g711"

// The tables of G.711, filled once from the frame functions of zaf/g711. A
// table of 256 entries is what the packet path can afford.
var (
	alawToLinear = tableOf(g711.DecodeAlawFrame)
	ulawToLinear = tableOf(g711.DecodeUlawFrame)
	alawToUlaw   = tableOf(g711.Alaw2UlawFrame)
	ulawToAlaw   = tableOf(g711.Ulaw2AlawFrame)
)

func tableOf[T int16 | uint8](f func(uint8) T) *[256]T {
	var t [256]T
	for i := range t {
		t[i] = f(uint8(i))
	}
	return &t
}

// DecodePCMA returns the 16-bit linear value of an A-law byte.
func DecodePCMA(b byte) int16 { return alawToLinear[b] }

// DecodePCMU returns the 16-bit linear value of a µ-law byte.
func DecodePCMU(b byte) int16 { return ulawToLinear[b] }

// EncodePCMA returns the A-law byte of a 16-bit linear sample.
func EncodePCMA(s int16) byte { return g711.EncodeAlawFrame(s) }

// EncodePCMU returns the µ-law byte of a 16-bit linear sample.
func EncodePCMU(s int16) byte { return g711.EncodeUlawFrame(s) }

// encodedZero is the byte that stands for the sample 0 in a law.
func encodedZero(law Codec) byte {
	if law == PCMA {
		return 0xD5
	}
	return 0xFF
}

// transcode copies G.711 samples from one law to the other; equal laws copy
// the bytes. dst must be at least as long as src.
func transcode(dst, src []byte, from, to Codec) {
	if from == to {
		copy(dst, src)
		return
	}
	table := ulawToAlaw
	if from == PCMA {
		table = alawToUlaw
	}
	dst = dst[:len(src)]
	for i, b := range src {
		dst[i] = table[b]
	}
}
