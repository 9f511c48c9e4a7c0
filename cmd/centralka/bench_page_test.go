//go:build linux

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestBenchReplacesWhatIsBetweenItsMarks(t *testing.T) {
	begin, end := benchMarks("scale")
	page := "before\n" + begin + "\nold\n" + end + "\nafter\n"
	got, err := benchReplace([]byte(page), "scale", "new")
	if want := "before\n" + begin + "\n\nnew\n\n" + end + "\nafter\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", begin, end + begin} {
		if _, err := benchReplace([]byte(bad), "scale", "new"); err == nil {
			t.Errorf("%q has no place for it, and there is no error", bad)
		}
	}
}

func TestBenchPageShowsRatiosAndWhatWasLost(t *testing.T) {
	r := benchResult{Config: benchFlags{Calls: 2, Seconds: 3, Rate: 20}}
	r.CPUPerPacket, r.Packets = 6, benchCounts{Sent: 10}
	r.Rivals = []benchRivalResult{{Name: "floor", benchFigures: benchFigures{CPUPerPacket: 5, Packets: benchCounts{Sent: 8, Lost: 1}}, Recorded: -1}}
	page := r.markdown()
	for _, want := range []string{"| floor | 5.0 µs | **1.20** |", "| 1, 0, 0, 0 of 8 | no |", "| centralka, recording | 6.0 µs | 1 |"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in\n%s", want, page)
		}
	}
}

func TestBenchPictureShowsEveryRunAndTheLimit(t *testing.T) {
	points := []benchPoint{
		{Calls: 20, CPUPerPacket: 30, CPU: 0.06, Floor: 25}, {Calls: 100, CPUPerPacket: 16, CPU: 0.16, Floor: 20},
		{Calls: 200, CPUPerPacket: 12.5, CPU: 0.25, Lost: 3, Failed: "3 packets were lost & <more>"},
	}
	svg := benchScaleSVG(points)
	count := map[string]int{}
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok {
			count[e.Name.Local]++
		}
	}
	if count["circle"] != 5 || count["path"] != 2 || count["title"] != 1 || count["desc"] != 1 {
		t.Errorf("elements %v", count)
	}
	for _, want := range []string{"200 calls: 12.5 µs", "prefers-color-scheme: dark", "limit: 3 packets were lost &amp; &lt;more&gt;"} {
		if !strings.Contains(svg, want) {
			t.Errorf("%q is not in the picture", want)
		}
	}
	table := benchScaleTable(points)
	for _, want := range []string{"| 20 | 30.0 µs | 0.06 | 3.00 ‰ | 25.0 µs |", "The limit was hit at 200 calls: 3 packets were lost & <more>."} {
		if !strings.Contains(table, want) {
			t.Errorf("%q is not in\n%s", want, table)
		}
	}
	if s := benchLimit(points[:2]); s != "No limit was hit up to 100 calls, which took 0.16 of the one core." {
		t.Error(s)
	}
}

func TestBenchReadsWhatRTPEngineAnswers(t *testing.T) {
	got := benchStringsOf([]byte("d3:sdp5:v=0\r\n4:tagsd3:onei42ee6:result2:oke"))
	if got["sdp"] != "v=0\r\n" || got["result"] != "ok" {
		t.Errorf("%q", got)
	}
	if got := benchStringsOf([]byte("d3:sdp99:v")); len(got) != 0 {
		t.Errorf("cut off: %q", got)
	}
}
