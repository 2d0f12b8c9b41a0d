package rollout_test

import (
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/state"
)

func TestDecodeState(t *testing.T) {
	for name, test := range map[string]struct{ data, refusal string }{
		"good":         {data: `{"format":1,"service":"chat","live":"blue","epoch":3,"members":{}}` + "\n"},
		"empty":        {data: ``, refusal: "unexpected end of JSON input; restore it from a backup"},
		"cut short":    {data: `{"format":1,"service":"chat"`, refusal: "restore it from a backup"},
		"no JSON":      {data: "live: blue", refusal: "restore it from a backup"},
		"trailing":     {data: `{"format":1,"service":"chat","live":"blue","epoch":0,"members":{}}}`, refusal: "restore it from a backup"},
		"unknown key":  {data: `{"format":1,"service":"chat","live":"blue","epoch":0,"members":{},"colour":"blue"}`, refusal: `unknown field "colour"; restore it`},
		"impossible":   {data: `{"format":1,"service":"chat","live":"red","epoch":0,"members":{}}`, refusal: `live colour is "red"; restore it`},
		"no format":    {data: `{"service":"chat","live":"blue","epoch":0,"members":{}}`, refusal: "state format 0 is not known"},
		"newer":        {data: `{"format":2,"service":"chat","live":"blue","lanes":[1]}`, refusal: "state format 2 is newer than this program's 1; run the newer rolloutd"},
		"another type": {data: `[]`, refusal: "restore it from a backup"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := state.Decode([]byte(test.data))
			if test.refusal == "" {
				if err != nil || s.Live != discovery.Blue || s.Epoch != 3 {
					t.Fatalf("got %+v, %v", s, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.refusal) {
				t.Fatalf("got %v; want %q in it", err, test.refusal)
			}
			if name == "newer" && strings.Contains(err.Error(), "move it away") {
				t.Fatalf("a newer state must not be moved away: %v", err)
			}
		})
	}
}

func TestDecodeStateOfAnotherService(t *testing.T) {
	data, err := state.Encode(state.New("chat", discovery.Blue))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.DecodeOf("chat", data); err != nil {
		t.Fatal(err)
	}
	if _, err := state.DecodeOf("feed", data); err == nil || !strings.Contains(err.Error(), "it is the state of service chat") {
		t.Fatalf("got %v", err)
	}
}
