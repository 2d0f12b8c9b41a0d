package drain_test

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails the package if tests leave goroutines behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
