package nearest

import "testing"

func TestOf(t *testing.T) {
	verbs := []string{"status", "plan", "promote", "pause", "pace", "resume", "abort"}
	for word, want := range map[string]string{
		"statsu": "status", "pln": "plan", "promot": "promote", "abrot": "abort", "resme": "resume",
		"frobnicate": "", "": "", "x": "", "pase": "", // pase is as near to pause as to pace
	} {
		if got := Of(word, verbs); got != want {
			t.Errorf("%q is taken for %q, want %q", word, got, want)
		}
	}
	if got := Ask("gren", []string{"blue", "green"}); got != "; did you mean green?" {
		t.Errorf("asks %q", got)
	}
}
