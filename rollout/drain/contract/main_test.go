package contract

import (
	"testing"

	"github.com/sluice-proxy/sluice/rollout/drain/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }
