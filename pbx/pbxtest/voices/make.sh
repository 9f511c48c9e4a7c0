#!/bin/sh
# Makes the spoken lines: sh make.sh (needs espeak-ng and sox).
set -e
cd "$(dirname "$0")"
line=$(mktemp --suffix=.wav)
trap 'rm -f "$line"' EXIT
say() { # name voice pitch speed text
	espeak-ng -v "$2" -p "$3" -s "$4" -w "$line" "$5"
	sox -D "$line" -r 8000 -c 1 -b 16 "$1.wav" \
		silence 1 0.02 0.5% reverse silence 1 0.02 0.5% reverse \
		highpass 200 lowpass 3400 norm -6 pad 0.05 0.1
}
say caller-id    pl+f2 60 185 "Dzień dobry, chciałabym zapytać o termin odbioru dowodu osobistego."
say caller-waste pl+m3 40 190 "Dzień dobry, kiedy odbierają odpady wielkogabarytowe?"
say caller-thanks pl+f2 60 180 "Dziękuję bardzo, do widzenia."
say agent-hello  pl+f4 45 190 "Dzień dobry, Centrum Informacji Mieszkańców, w czym mogę pomóc?"
say agent-ready  pl+f4 45 185 "Dowód jest gotowy, można go odebrać od jutra."
say agent-callback pl+m1 50 190 "Dzień dobry, oddzwaniam z urzędu miasta w sprawie wniosku."
say resident-yes pl+m7 45 185 "Tak, słucham, dziękuję za telefon."
