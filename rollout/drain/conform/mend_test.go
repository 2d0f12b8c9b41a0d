package conform

import "testing"

// A rule that fails says how it is mended.
func TestEveryRuleHasItsMend(t *testing.T) {
	left := map[string]bool{}
	for name := range mends {
		left[name] = true
	}
	for _, r := range Rules() {
		if mends[r.Name] == "" {
			t.Errorf("the rule %s does not say how it is mended", r.Name)
		}
		delete(left, r.Name)
	}
	for name := range left {
		t.Errorf("there is no rule %s to be mended", name)
	}
}
