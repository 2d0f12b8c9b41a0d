package discovery

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// fleet has one instance for each letter; a capital one is critical, and one before a
// dash is green.
func fleet(letters string) Fleet {
	f := Fleet{Instances: []Instance{}}
	green, blue, both := strings.Cut(letters, "-")
	if !both {
		green, blue = "", letters
	}
	for i, c := range green + blue {
		in := Instance{
			ID: InstanceID(strings.ToLower(string(c))), Colour: Blue, Health: Passing,
			Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 80),
		}
		if c < 'a' {
			in.Health = Critical
		}
		if i < len(green) {
			in.Colour = Green
		}
		f.Instances = append(f.Instances, in)
	}
	slices.SortFunc(f.Instances, func(a, b Instance) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return f
}

func letters(f Fleet) string {
	var s strings.Builder
	for _, i := range f.Instances {
		if i.Colour == Green {
			s.WriteByte('+')
		}
		if i.Health == Critical {
			s.WriteString(strings.ToUpper(string(i.ID)))
		} else {
			s.WriteString(string(i.ID))
		}
	}
	return s.String()
}

func TestBelieve(t *testing.T) {
	const (
		stale      = false
		consistent = true
	)
	type reading struct {
		after      time.Duration // since the reading before
		consistent bool
		listed     string
		believed   string
		suspect    bool
	}
	for name, readings := range map[string][]reading{
		"a first reading is believed": {{0, stale, "a", "a", false}},
		"half may go at once":         {{0, stale, "abcdef", "abcdef", false}, {0, stale, "abc", "abc", false}},
		"one of two may go at once":   {{0, stale, "ab", "ab", false}, {0, stale, "b", "b", false}},
		"health is believed at once": {
			{0, stale, "abc", "abc", false}, {0, stale, "ABC", "ABC", false},
		},
		"more than half is held until a consistent reading confirms it": {
			{0, stale, "abcdef", "abcdef", false},
			{0, stale, "ab", "abcdef", true},
			{9999 * time.Millisecond, consistent, "ab", "abcdef", true},
			{time.Second, stale, "ab", "abcdef", true},
			{0, consistent, "ab", "ab", false},
		},
		"what is still listed stays fresh while others are held": {
			{0, stale, "abcd", "abcd", false},
			{0, stale, "A", "Abcd", true},
			{time.Second, stale, "ax", "abcdx", true},
			{9 * time.Second, consistent, "ax", "ax", false},
		},
		"coming back clears the doubt": {
			{0, stale, "abcd", "abcd", false},
			{0, stale, "a", "abcd", true},
			{time.Second, stale, "abcd", "abcd", false},
			{20 * time.Second, consistent, "a", "abcd", true},
			{10 * time.Second, consistent, "a", "a", false},
		},
		"every change of what is missing starts the hold again": {
			{0, stale, "abcdef", "abcdef", false},
			{0, stale, "a", "abcdef", true},
			{8 * time.Second, stale, "ab", "abcdef", true},
			{8 * time.Second, consistent, "ab", "abcdef", true},
			{1 * time.Second, consistent, "abcde", "abcdef", true},
			{10 * time.Second, consistent, "abcde", "abcde", false},
		},
		"nothing is never believed": {
			{0, stale, "aB", "aB", false},
			{0, consistent, "", "aB", true},
			{time.Hour, consistent, "", "aB", true},
			{time.Hour, consistent, "a", "aB", true},
			{10 * time.Second, consistent, "a", "a", false},
			{0, consistent, "", "a", true},
		},
		"the half of a colour is enough": {
			{0, stale, "abc-def", "+a+b+cdef", false},
			{0, stale, "abc-", "+a+b+cdef", true},
			{10 * time.Second, consistent, "abc-", "+a+b+c", false},
		},
		"another colour is an absence, and health is believed": {
			{0, stale, "abc-def", "+a+b+cdef", false},
			{0, stale, "abcd-ef", "+a+b+c+def", false}, // one of three
			{0, stale, "abcdEf-", "+a+b+c+dEf", true},
			{9 * time.Second, stale, "abcde-f", "+a+b+c+def", true}, // another absence
			{9 * time.Second, consistent, "abcde-f", "+a+b+c+def", true},
			{time.Second, consistent, "abcde-f", "+a+b+c+d+ef", false},
		},
		"a colour whose last is recoloured": {
			{0, stale, "a-b", "+ab", false},
			{0, stale, "ab-", "+ab", true},
			{time.Second, stale, "a-b", "+ab", false},
		},
		"all at once replaced by others": {
			{0, stale, "abc", "abc", false},
			{0, stale, "xyz", "abcxyz", true},
			{0, stale, "xyz", "abcxyz", true},
			{10 * time.Second, consistent, "xyz", "xyz", false},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var believed Fleet
			var doubt Doubt
			now := noon
			for n, r := range readings {
				now = now.Add(r.after)
				believed, doubt = Believe(believed, Reading{
					Registry: "Consul", Service: "chat", Fleet: fleet(r.listed), Consistent: r.consistent, At: now,
				}, doubt, DefaultHold)
				if got := letters(believed); got != r.believed || (believed.Suspect != "") != r.suspect {
					t.Fatalf("reading %d of %q: believed %q, suspect %q; want %q, suspect %v", n, r.listed, got, believed.Suspect, r.believed, r.suspect)
				}
			}
		})
	}
}

func TestSuspicionInWords(t *testing.T) {
	left := Fleet{LeftOut: []LeftOut{{"a", "it has no colour"}, {"b", "it has no colour"}}}
	for _, c := range []struct {
		read Fleet
		want string
	}{
		{fleet(""), "Consul lists no instance of chat; the 6 last known are kept until it lists some again"},
		{left, "Consul lists no usable instance of chat (2 left out); the 6 last known are kept until it lists some again"},
		{fleet("cdef-ab"), "Consul no longer lists 4 of the 6 known blue instances of chat, or lists them under another colour; they are kept until the same is read 10s later"},
		{fleet("ab"), "Consul no longer lists 4 of the 6 known blue instances of chat; they are kept until the same is read 10s later"},
	} {
		got, doubt := Believe(fleet("abcdef"), Reading{Registry: "Consul", Service: "chat", Fleet: c.read, At: noon}, Doubt{}, DefaultHold)
		if got.Suspect != c.want {
			t.Errorf("suspect: %q\nwant:    %q", got.Suspect, c.want)
		}
		due, settles := doubt.Due(DefaultHold)
		if settles != (len(c.read.Instances) > 0) || (settles && due != noon.Add(DefaultHold)) {
			t.Errorf("%s: due %v %v", c.want, due, settles)
		}
	}
}

// FuzzBelieve plays any sequence of readings: two bytes each, a set of eight
// instances and what is between this reading and the one before.
func FuzzBelieve(f *testing.F) {
	f.Add([]byte{0xff, 0, 0x01, 0, 0x01, 0x8b, 0, 3, 0xf0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		var believed Fleet
		var doubt Doubt
		now := noon
		var missingSince []time.Time // when each reading began to miss exactly what it misses
		var missingBefore []InstanceID
		for ; len(data) >= 2; data = data[2:] {
			var set strings.Builder
			for i := range 8 {
				if data[0]&(1<<i) != 0 {
					set.WriteString(string(rune('a' + i)))
				}
			}
			now = now.Add(time.Duration(data[1]&0x7f) * time.Second)
			read, before := fleet(set.String()), believed
			sure := data[1]&0x80 != 0
			missing := absent(before, read)
			if !slices.Equal(missing, missingBefore) {
				missingSince = append(missingSince, now)
			}
			believed, doubt = Believe(before, Reading{Registry: "Consul", Service: "chat", Fleet: read, Consistent: sure, At: now}, doubt, DefaultHold)
			missingBefore = absent(believed, read)

			if !slices.IsSortedFunc(believed.Instances, func(a, b Instance) int { return strings.Compare(string(a.ID), string(b.ID)) }) {
				t.Fatalf("not sorted: %v", believed.Instances)
			}
			for _, i := range read.Instances {
				if !slices.Contains(believed.Instances, i) {
					t.Fatalf("%s is listed and not believed", i.ID)
				}
			}
			for _, i := range believed.Instances {
				if !slices.Contains(read.Instances, i) && !slices.Contains(before.Instances, i) {
					t.Fatalf("%s was made up", i.ID)
				}
			}
			if len(before.Instances) > 0 && len(believed.Instances) == 0 {
				t.Fatal("nothing was believed where there was something")
			}
			dropped := absent(before, believed)
			if 2*len(dropped) > len(before.Instances) && (!sure || now.Sub(missingSince[len(missingSince)-1]) < DefaultHold) {
				t.Fatalf("%v of %v dropped unconfirmed", dropped, before.Instances)
			}
			if len(dropped) > 0 && len(missingBefore) > 0 {
				t.Fatal("some of the missing were dropped and others kept")
			}
			if held := len(missingBefore) > 0; held != (believed.Suspect != "") || held != (len(doubt.missing) > 0) {
				t.Fatalf("held %v, suspect %q, doubt %v", missingBefore, believed.Suspect, doubt)
			}
		}
	})
}

// absent lists what is in f and not in g.
func absent(f, g Fleet) []InstanceID {
	var ids []InstanceID
	for _, i := range f.Instances {
		if !slices.ContainsFunc(g.Instances, func(j Instance) bool { return i.ID == j.ID }) {
			ids = append(ids, i.ID)
		}
	}
	return ids
}
