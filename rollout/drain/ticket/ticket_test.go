package ticket

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const key = "a key of the fleet's"

var now = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// fixed is a ticket of now that is the same in each run, so that what is almost never
// genuine is never genuine here.
func fixed(b *Book) string { return b.text(Genuine{periodOf(now), 0x5ca1ab1}) }

// Whoever has the key takes what another with it gave, once, and nothing else.
func TestATicketIsTakenOnce(t *testing.T) {
	given := fixed(New(key))
	if len(given) != size {
		t.Fatalf("%q has %d characters", given, len(given))
	}
	target := New(key)
	g := target.Check(given, now.Add(time.Minute))
	if g == (Genuine{}) || !target.Take(g) {
		t.Fatalf("%q is not taken", given)
	}
	if target.Take(target.Check(given, now.Add(2*time.Minute))) {
		t.Error("it is taken again")
	}
	if one, two := target.Give(now), target.Give(now); one == two || !target.Take(target.Check(one, now)) || !target.Take(target.Check(two, now)) {
		t.Errorf("%q and %q are not two tickets", one, two)
	}
	if New("a key of another fleet's").Check(given, now) != (Genuine{}) {
		t.Error("it is genuine for another key")
	}
}

// A ticket is genuine for a period at least, and is never taken again once it is
// forgotten that it was taken.
func TestATicketGrowsOld(t *testing.T) {
	b := New(key)
	given := fixed(b)
	first := b.Check(given, now)
	for after, genuine := range map[time.Duration]bool{
		0: true, period: true, 2*period - time.Second: true, 3 * period: false, 24 * time.Hour: false, -period: true, -2 * period: false,
	} {
		if got := b.Check(given, now.Add(after)) == first; got != genuine {
			t.Errorf("after %s genuine is %t, want %t", after, got, genuine)
		}
	}
	b.Take(first)
	for i := range 5 {
		later := now.Add(time.Duration(i+1) * period)
		if b.Take(b.Check(b.Give(later), later)); b.Take(first) {
			t.Errorf("%d periods later it is taken again", i+1)
		}
		if len(b.taken) > 3 {
			t.Errorf("%d periods are remembered", len(b.taken))
		}
	}
}

// What nobody gave is genuine in 3 of 2^20 attempts; of so few none is.
func TestWhatNobodyGave(t *testing.T) {
	b := New(key)
	given := fixed(b)
	wrong := []string{"", "k3v9x2p", "k3v9x2pq1", "k3v9x2p=", "k3v9 2pq", strings.Repeat("x", 1<<20), given + "\x00", given[:7] + "\n", given[1:]}
	for i := range given { // another character in its place is another nonce or another tag
		for _, c := range []string{"A", "_", "7"} {
			if other := given[:i] + c + given[i+1:]; other != given {
				wrong = append(wrong, other)
			}
		}
	}
	for _, text := range wrong {
		if b.Take(b.Check(text, now)) {
			t.Errorf("%.20q is taken", text)
		}
	}
	none := New("too short")
	if none.Give(now) != "" || none.Take(none.Check(given, now)) || none.Take(Genuine{1, 1}) {
		t.Error("without a key tickets are given or taken")
	}
}

// However many are brought, what a process remembers is bounded.
func TestTakenTicketsAreBounded(t *testing.T) {
	b := New(key)
	b.most = 100
	for i := range uint32(100) {
		if !b.Take(Genuine{1, i}) {
			t.Fatalf("the ticket %d is not taken", i)
		}
	}
	if b.Take(Genuine{1, 100}) {
		t.Error("one more than can be remembered is taken")
	}
	if !b.Take(Genuine{2, 1}) {
		t.Error("one of the next period is not taken")
	}
}

func TestATicketStandsBehindAText(t *testing.T) {
	for text, want := range map[string][2]string{
		"service restart #k3v9x2pq": {"service restart", "k3v9x2pq"}, " #k3v9x2pq": {"", "k3v9x2pq"}, "a #k3v9x2pq #A-_z09AZ": {"a #k3v9x2pq", "A-_z09AZ"},
		"": {"", ""}, "service restart": {"service restart", ""}, "#k3v9x2pq": {"#k3v9x2pq", ""}, "a #k3v9x2p": {"a #k3v9x2p", ""}, "a #k3v9x2p!": {"a #k3v9x2p!", ""},
	} {
		before, ticket := Cut(text)
		if before != want[0] || ticket != want[1] || Behind(before, ticket) != text {
			t.Errorf("%q: %q and %q, want %q", text, before, ticket, want)
		}
	}
}

func TestATicketOfARequest(t *testing.T) {
	for _, tc := range []struct{ query, header, want string }{
		{"", "", ""}, {"?sluice-ticket=a", "", "a"}, {"?x=1", "b", "b"}, {"?sluice-ticket=a", "a", "a"},
		{"?sluice-ticket=a", "b", ""}, {"?sluice-ticket=a&sluice-ticket=b", "", ""}, {"?sluice-tickets=a", "", ""},
	} {
		r := httptest.NewRequest("GET", "/"+tc.query, nil)
		if tc.header != "" {
			r.Header.Set(Word, tc.header)
		}
		if got := Of(r); got != tc.want {
			t.Errorf("%+v: %q", tc, got)
		}
	}
}
