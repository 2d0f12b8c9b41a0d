package discovery

import (
	"fmt"
	"testing"
)

func TestTwins(t *testing.T) {
	f := NewFleet([]Registration{
		{ID: "a", Colour: Blue, Address: "10.0.0.1", Port: 9000, Drain: ":9001"},
		{ID: "b", Colour: Green, Address: "::ffff:10.0.0.1", Port: 9000}, // a's address
		{ID: "c", Colour: Blue, Address: "10.0.0.2", Port: 9000, Drain: "http://10.0.0.1:9001/drain"},
		{ID: "d", Colour: Blue, Address: "10.0.0.1", Port: 9000, Drain: "9001"},
		{ID: "e", Colour: Blue, Address: "10.0.0.3", Port: 9000, Drain: ":9001"},
	})
	const want = "[the address 10.0.0.1:9000 [a b d] the drain endpoint http://10.0.0.1:9001 [a c d]]"
	var got []any
	for _, x := range f.Twins {
		got = append(got, x, x.IDs)
	}
	if fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
}
