package desired

import (
	"cmp"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// Instruction is an Order to drain, or a Release to serve; one of the two is set.
type Instruction struct {
	Drain *contract.Order
	Serve *contract.Release
}

// Epoch is that of the order or the release; 0 without one.
func (i Instruction) Epoch() uint64 {
	switch {
	case i.Drain != nil:
		return i.Drain.Epoch
	case i.Serve != nil:
		return i.Serve.Epoch
	}
	return 0
}

// Same reports whether two instructions say the same.
func (i Instruction) Same(other Instruction) bool {
	switch {
	case i.Drain != nil && other.Drain != nil:
		return i.Drain.Rollout == other.Drain.Rollout && i.Drain.Epoch == other.Drain.Epoch && i.Drain.Step == other.Drain.Step
	case i.Serve != nil && other.Serve != nil:
		return *i.Serve == *other.Serve
	}
	return i == other
}

// ShownBy reports whether an instance of this status follows the instruction. A
// release is needed only by an instance that an order closed. One that closed its
// gate by itself is stopping.
func (i Instruction) ShownBy(s contract.Status) bool {
	switch {
	case i.Drain != nil:
		return s.Rollout == i.Drain.Rollout && s.State != contract.Serving &&
			cmp.Or(cmp.Compare(s.Epoch, i.Drain.Epoch), cmp.Compare(s.Step, i.Drain.Step)) >= 0
	case i.Serve != nil:
		return s.State == contract.Serving || s.Rollout == ""
	}
	return true
}
