package spread

import (
	"slices"
	"testing"
)

func TestShares(t *testing.T) {
	for _, c := range []struct {
		n    int
		held []int
		want []int
	}{
		{10, []int{34, 33, 33}, []int{4, 3, 3}},
		{10, []int{3, 0, 1}, []int{3, 0, 1}},
		{1, []int{5, 5, 5}, []int{1, 0, 0}},
		{4, []int{1, 1, 1, 97}, []int{0, 0, 0, 4}},
		{0, []int{7}, []int{0}},
		{5, nil, nil},
	} {
		if got := Shares(c.n, c.held); !slices.Equal(got, c.want) {
			t.Errorf("shares(%d, %v) = %v, want %v", c.n, c.held, got, c.want)
		}
	}
}

func FuzzShares(f *testing.F) {
	f.Add(10, []byte{34, 33, 33})
	f.Fuzz(func(t *testing.T, n int, raw []byte) {
		n = min(n, 1<<30)
		held, total := make([]int, len(raw)), 0
		for i, b := range raw {
			held[i] = int(b) * 31
			total += held[i]
		}
		sum := 0
		for i, s := range Shares(n, held) {
			if s < 0 || s > held[i] {
				t.Fatalf("instance %d holds %d and is to close %d", i, held[i], s)
			}
			if total > 0 && n > 0 && n <= total {
				if exact := float64(n) * float64(held[i]) / float64(total); float64(s) <= exact-1 || float64(s) >= exact+1 {
					t.Fatalf("instance %d: %d closes for a quota of %f", i, s, exact)
				}
			}
			sum += s
		}
		if want := min(max(n, 0), total); sum != want {
			t.Fatalf("%d closes were shared out, want %d", sum, want)
		}
	})
}
