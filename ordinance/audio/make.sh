#!/usr/bin/env bash
# Speaks the texts of the manifests in this folder and writes the WAV files and
# the manifests anew. Run by hand when a text or the voice changes; neither the
# build nor a test ever calls it.
#
# Needs Debian's espeak-ng and sox. The text that is spoken is the field "text"
# of NAME.json; everything else in the manifest is written by this script. The
# version is the only thing to be edited by hand, together with the text.
set -euo pipefail
export LC_ALL=C.UTF-8
cd "$(dirname "$0")"

# The pace is calm (some 14 characters a second). The band is that of a
# telephone line, so that nothing folds back at 8 kHz. compand and the limiter
# bring syllables to one level; the peak ends at -3 dBFS, with 0.2 s of digital
# silence at both ends.
speak='espeak-ng -v pl -s 165 -p 45'
chain='sinc 300-3400 rate -v 8000 gain -n -3
  compand 0.002,0.05 6:-70,-80,-40,-30,-25,-14,0,-7 0 -90 0.002
  gain -n 0 gain -l 4
  silence 1 0.01 -50d reverse silence 1 0.01 -50d reverse
  gain -n -3 pad 0.2 0.2'

field() { sed -nE "s/^  \"$2\": \"(.*)\",?\$/\1/p" "$1"; }
sha() { sha256sum | cut -d' ' -f1; }

tools="$(espeak-ng --version | sed -E 's/ +Data at.*//; s/text-to-speech: //'), $(sox --version | sed 's/^sox: *//')"
for name in announcement closed busy; do
  text=$(field "$name.json" text)
  version=$(field "$name.json" version)
  [ -n "$text" ] && [ -n "$version" ] || { echo "$name.json: no text or no version" >&2; exit 1; }
  $speak --stdout -- "$text" | sox -D -t wav --ignore-length - -b 16 -c 1 -r 8000 "$name.wav" $chain
  cat > "$name.json" <<JSON
{
  "version": "$version",
  "text": "$text",
  "text_sha256": "$(printf %s "$text" | sha)",
  "audio": "$name.wav",
  "audio_sha256": "$(sha < "$name.wav")",
  "format": "WAV, PCM 16 bit, mono, 8000 Hz",
  "samples": $(soxi -s "$name.wav"),
  "duration": "$(soxi -D "$name.wav") s",
  "tools": "$tools",
  "commands": [
    "$speak --stdout -- TEXT > speech.wav",
    "sox -D speech.wav -b 16 -c 1 -r 8000 $name.wav $(echo $chain)"
  ]
}
JSON
  echo "$name.wav: $(soxi -D "$name.wav") s, $(stat -c %s "$name.wav") bytes"
done
