package wsframe

import "testing"

// A message is under way from its first byte to the last of its final frame, and
// control frames between its fragments neither begin nor end one.
func TestInMessage(t *testing.T) {
	var all []byte
	var ends []int // where no message is under way
	for _, f := range []struct {
		first byte
		size  int
		whole bool
	}{
		{Final | Text, 3, true}, {Text, 200, false}, {Final | Ping, 5, false}, {0, 0, false}, {Final, 70_000, true}, {Final | Pong, 0, true}, {Final | Close, 2, true},
	} {
		all = append(all, frame(f.first, false, f.size)...)
		if f.whole {
			ends = append(ends, len(all))
		}
	}
	tr := Tracker{From: Server}
	for i, b := range all {
		tr.Follow([]byte{b})
		whole := len(ends) > 0 && ends[0] == i+1
		if tr.InMessage() == whole {
			t.Fatalf("after %d of %d bytes a message is under way: %v", i+1, len(all), tr.InMessage())
		}
		if whole {
			ends = ends[1:]
		}
	}
}
