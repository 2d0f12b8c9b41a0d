package discovery

import (
	"math/rand/v2"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestNewFleet(t *testing.T) {
	ok := Registration{ID: "a", Colour: Blue, Address: "10.0.0.1", Port: 80, Health: Warning, Drain: "9002", Capacity: "50", Version: "v1"}
	with := func(change func(*Registration)) Registration {
		r := ok
		change(&r)
		return r
	}
	used := Instance{
		ID: "a", Colour: Blue, Addr: netip.MustParseAddrPort("10.0.0.1:80"), Health: Warning,
		Drain: "http://10.0.0.1:9002", Capacity: 50, Version: "v1",
	}
	for name, c := range map[string]struct {
		registration Registration
		leftOut      string // part of the reason; empty: used
		note         string // part of the note; empty: none
	}{
		"all declared":        {ok, "", ""},
		"mapped IPv4":         {with(func(r *Registration) { r.Address = "::ffff:10.0.0.1" }), "", ""},
		"no id":               {with(func(r *Registration) { r.ID = "" }), "no id", ""},
		"unfit":               {with(func(r *Registration) { r.Unfit = "it is tired" }), "it is tired", ""},
		"host name":           {with(func(r *Registration) { r.Address = "chat.local" }), `"chat.local" is no IP address`, ""},
		"no address":          {with(func(r *Registration) { r.Address = "" }), "no address", ""},
		"any address":         {with(func(r *Registration) { r.Address = "0.0.0.0" }), "cannot be connected to", ""},
		"zone":                {with(func(r *Registration) { r.Address = "fe80::1%eth0" }), "cannot be connected to", ""},
		"port 0":              {with(func(r *Registration) { r.Port = 0 }), "port is 0", ""},
		"port too high":       {with(func(r *Registration) { r.Port = 65536 }), "port is 65536", ""},
		"capacity in words":   {with(func(r *Registration) { r.Capacity = "lots" }), "", `capacity "lots"`},
		"capacity 0":          {with(func(r *Registration) { r.Capacity = "0" }), "", `capacity "0"`},
		"capacity overflow":   {with(func(r *Registration) { r.Capacity = "99999999999999999999" }), "", "capacity"},
		"capacity of a typo":  {with(func(r *Registration) { r.Capacity = "9223372036854775807" }), "", "from 1 to 100000000"},
		"ends in a century":   {with(func(r *Registration) { r.KillAfter = "900000h" }), "", "of 30 days at most"},
		"weights":             {with(func(r *Registration) { r.Ignored = "its weights are not used" }), "", "not used"},
		"unreadable drain":    {with(func(r *Registration) { r.Drain = "here" }), "", `drain address "here"`},
		"nothing but address": {Registration{ID: "a", Colour: Blue, Address: "10.0.0.1", Port: 80}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := NewFleet([]Registration{c.registration})
			if c.leftOut != "" {
				if len(f.Instances) != 0 || len(f.LeftOut) != 1 || !strings.Contains(f.LeftOut[0].Reason, c.leftOut) {
					t.Fatalf("left out %+v, want a reason with %q", f.LeftOut, c.leftOut)
				}
				return
			}
			want := used
			if c.registration.Capacity != ok.Capacity {
				want.Capacity = 0
			}
			if c.registration.Drain != ok.Drain {
				want.Drain = ""
			}
			want.Health, want.Version = c.registration.Health, c.registration.Version
			if len(f.LeftOut) != 0 || !slices.Equal(f.Instances, []Instance{want}) {
				t.Fatalf("%+v\nwant %+v", f, want)
			}
			if (c.note == "") != (len(f.Notes) == 0) || (c.note != "" && !strings.Contains(f.Notes[0].Text, c.note)) {
				t.Fatalf("notes %+v, want %q", f.Notes, c.note)
			}
		})
	}
}

func TestNewFleetIsTheSameInAnyOrder(t *testing.T) {
	all := []Registration{
		{ID: "b", Colour: Blue, Address: "10.0.0.2", Port: 80, Capacity: "x", Drain: "x"},
		{ID: "a", Colour: Blue, Address: "10.0.0.1", Port: 80},
		{ID: "a", Colour: Green, Address: "10.0.0.3", Port: 80},
		{ID: "c", Colour: Green, Address: "10.0.0.1", Port: 80},
		{ID: "d", Unfit: "it is tired"},
	}
	want := NewFleet(all)
	if len(want.Instances) != 3 || len(want.LeftOut) != 2 || len(want.Notes) != 2 || len(want.Twins) != 1 {
		t.Fatalf("%+v", want)
	}
	for range 50 {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if got := NewFleet(all); !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v\nwant %+v", got, want)
		}
	}
}

func TestDrainAddress(t *testing.T) {
	for in, want := range map[string]string{
		"":                               "",
		"hook":                           "",
		"10.0.0.5:9002":                  "http://10.0.0.5:9002",
		"drain.local:9002":               "http://drain.local:9002",
		":9002":                          "http://10.0.0.1:9002",
		"9002":                           "http://10.0.0.1:9002",
		"0.0.0.0:9002":                   "http://10.0.0.1:9002",
		"[::]:9002":                      "http://10.0.0.1:9002",
		"[2001:db8::1]:9002":             "http://[2001:db8::1]:9002",
		"http://10.0.0.5:9002":           "http://10.0.0.5:9002",
		"https://drain.local":            "https://drain.local",
		"https://drain.local/chat/":      "https://drain.local/chat",
		"http://10.0.0.5:9002/drain":     "http://10.0.0.5:9002",
		"http://10.0.0.5:9002/a/drain/":  "http://10.0.0.5:9002/a",
		"0":                              "bad",
		"65536":                          "bad",
		"10.0.0.5":                       "bad",
		"10.0.0.5:":                      "bad",
		"ftp://10.0.0.5:9002":            "bad",
		"http://":                        "bad",
		"http://:9002":                   "bad",
		"http://10.0.0.5:99999":          "bad",
		"http://user:pw@10.0.0.5:9002":   "bad",
		"http://10.0.0.5:9002/?a=b":      "bad",
		"http://10.0.0.5:9002/#fragment": "bad",
		"10.0.0.5/x:9002":                "bad",
		"2001:db8::1:9002":               "bad",
	} {
		got, err := drainURL(in, netip.MustParseAddr("10.0.0.1"))
		if err != nil {
			got = "bad"
		}
		if got != want {
			t.Errorf("%q: %q, want %q (%v)", in, got, want, err)
		}
	}
	if got, _ := drainURL("9002", netip.MustParseAddr("2001:db8::1")); got != "http://[2001:db8::1]:9002" {
		t.Errorf("own IPv6 host: %q", got)
	}
}

func FuzzNewFleet(f *testing.F) {
	f.Add("a", "10.0.0.1", 80, ":9002", "5", "a", "::1", 81, "http://h:1/drain", "x")
	f.Fuzz(func(t *testing.T, id1, address1 string, port1 int, drain1, capacity1, id2, address2 string, port2 int, drain2, capacity2 string) {
		fleet := NewFleet([]Registration{
			{ID: InstanceID(id1), Colour: Blue, Address: address1, Port: port1, Drain: drain1, Capacity: capacity1},
			{ID: InstanceID(id2), Colour: Green, Address: address2, Port: port2, Drain: drain2, Capacity: capacity2},
		})
		if len(fleet.Instances)+len(fleet.LeftOut) != 2 {
			t.Fatalf("something got lost: %+v", fleet)
		}
		for n, i := range fleet.Instances {
			if i.ID == "" || !i.Addr.IsValid() || i.Addr.Port() == 0 || i.Capacity < 0 || (n > 0 && fleet.Instances[n-1].ID >= i.ID) {
				t.Fatalf("%+v", fleet.Instances)
			}
			if i.Drain == "" {
				continue
			}
			if u, err := url.Parse(i.Drain + "/drain"); err != nil || u.Host == "" || !strings.HasSuffix(u.Path, "/drain") {
				t.Fatalf("drain %q: %v", i.Drain, err)
			}
		}
	})
}
