#!/usr/bin/env bash
# Speaks the texts of the manifests in this folder and writes the WAV files and
# the manifests anew. Run by hand when a text or the voice changes; neither the
# build nor a test ever calls it.
#
# Needs Debian's espeak-ng and sox. The text that is spoken is the field "text"
# of NAME.json, or of each part in queue.json; everything else in the manifest is
# written by this script. The version is the only thing to be edited by hand,
# together with the text.
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
  gain -n -3'
ends='pad 0.2 0.2'
part_ends='pad 0.06 0.06'

field() { sed -nE "s/^  \"$2\": \"(.*)\",?\$/\1/p" "$1"; }
sha() { sha256sum | cut -d' ' -f1; }

tools="$(espeak-ng --version | sed -E 's/ +Data at.*//; s/text-to-speech: //'), $(sox --version | sed 's/^sox: *//')"
for name in announcement closed busy; do
  text=$(field "$name.json" text)
  version=$(field "$name.json" version)
  [ -n "$text" ] && [ -n "$version" ] || { echo "$name.json: no text or no version" >&2; exit 1; }
  $speak --stdout -- "$text" | sox -D -t wav --ignore-length - -b 16 -c 1 -r 8000 "$name.wav" $chain $ends
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
    "sox -D speech.wav -b 16 -c 1 -r 8000 $name.wav $(echo $chain $ends)"
  ]
}
JSON
  echo "$name.wav: $(soxi -D "$name.wav") s, $(stat -c %s "$name.wav") bytes"
done

# What is said to callers in a queue is joined from parts. They lie one after the
# other in one file of A-law bytes without a header.
version=$(field queue.json version)
mapfile -t parts < <(sed -nE 's/^    \{"name": "([^"]+)", "text": "([^"]+)".*/\1|\2/p' queue.json)
[ -n "$version" ] && [ "${#parts[@]}" -gt 0 ] || { echo "queue.json: no parts or no version" >&2; exit 1; }
: > queue.al
list=
for part in "${parts[@]}"; do
  name=${part%%|*} text=${part#*|}
  from=$(stat -c %s queue.al)
  $speak --stdout -- "$text" | sox -D -t wav --ignore-length - -t al -c 1 -r 8000 - $chain $part_ends >> queue.al
  list+="${list:+,
}    {\"name\": \"$name\", \"text\": \"$text\", \"from\": $from, \"samples\": $(($(stat -c %s queue.al) - from))}"
done
cat > queue.json <<JSON
{
  "version": "$version",
  "audio": "queue.al",
  "audio_sha256": "$(sha < queue.al)",
  "format": "A-law without header, mono, 8000 Hz",
  "text_sha256": "$(for part in "${parts[@]}"; do printf '%s\n' "$part"; done | sha)",
  "tools": "$tools",
  "commands": [
    "$speak --stdout -- TEXT > speech.wav",
    "sox -D speech.wav -t al -c 1 -r 8000 part.al $(echo $chain $part_ends)"
  ],
  "parts": [
$list
  ]
}
JSON
echo "queue.al: ${#parts[@]} parts, $(stat -c %s queue.al) bytes"
