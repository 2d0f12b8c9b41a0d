package rules

import "testing"

func TestCheckName(t *testing.T) {
	for name, want := range map[string]bool{"chat": true, "chat-v2": true, "a.b": true, "...": true, ".": false, "..": false, "../kv": false, "a?b": false, "a#b": false, "a b": true} {
		if err := CheckName(name); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestCheckWatches(t *testing.T) {
	if CheckWatches(MaxWatches) != nil || CheckWatches(MaxWatches+1) == nil {
		t.Error("the most is not the most")
	}
}
