package wsframe

import (
	"bytes"
	"strings"
	"testing"
)

func TestGoodbye(t *testing.T) {
	if got := string(Goodbye(1012, "service restart")); got != ServiceRestart {
		t.Errorf("%q, want %q", got, ServiceRestart)
	}
	for reason, want := range map[string]string{
		"":                                "",
		strings.Repeat("x", 200):          strings.Repeat("x", 123),
		strings.Repeat("x", 122) + "über": strings.Repeat("x", 122),
		"broken \xff text":                "broken  text",
	} {
		f, err := Read(bytes.NewReader(Goodbye(4000, reason)), 125)
		if err != nil || f.Opcode != Close || string(f.Payload) != "\x0f\xa0"+want {
			t.Errorf("%q became %q, %v", reason, f.Payload, err)
		}
	}
}
