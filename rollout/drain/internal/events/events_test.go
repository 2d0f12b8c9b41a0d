package events

import "testing"

func TestTracker(t *testing.T) {
	long := make([]byte, 2*maxLine)
	for i := range long {
		long[i] = 'x'
	}
	for text, want := range map[string]struct {
		id      string
		between bool
	}{
		"":                                      {"", true},
		"data: hello\n\n":                       {"", true},
		"data: hello\n":                         {"", false},
		"data: hel":                             {"", false},
		"id: 7\ndata: a\n\n":                    {"7", true},
		"id: 7\r\ndata: a\r\n\r\n":              {"7", true},
		"id:7\rdata: a\r\r":                     {"7", true},
		"id: 7\n\nid: 8\ndata":                  {"7", false},
		"id: 7\n\nid\ndata: a\n\n":              {"", true},
		"id: 7\n\nid: 8\x00\n\n":                {"7", true},
		"id: 7\n\n: a comment\n":                {"7", true},
		"identity: 7\n\n":                       {"", true},
		"data: id: 7\n\n":                       {"", true},
		"data: " + string(long) + "\n\n":        {"", true},
		"id: " + string(long) + "\n\n":          {"", false},
		"id: " + string(long) + "\n\nid: 9\n\n": {"9", true},
	} {
		for cut := range len(text) + 1 {
			var tr Tracker
			tr.Follow([]byte(text[:cut]))
			tr.Follow([]byte(text[cut:]))
			if id, between := tr.Between(); id != want.id || between != want.between {
				t.Fatalf("%.40q, cut at %d: %q, %t; want %q, %t", text, cut, id, between, want.id, want.between)
			}
		}
	}
}
