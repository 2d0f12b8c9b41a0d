package contract

import (
	"fmt"
	"slices"
	"strings"
)

// Ability names words of the contract that came after its first version. A status says
// which its instance has. An order with a word that changes what it means is given only
// to an instance that can: one that is older would leave the word out, and let
// everybody go.
type Ability string

const (
	// CanLevels: it may hold several orders, each of a name of its own.
	CanLevels Ability = "levels"
	// CanFrom: an order may cover only the connections that came through some nodes.
	CanFrom Ability = "from"
	// CanAsk: it asks clients to come over before it closes, and gives them notice.
	CanAsk Ability = "ask"
	// CanTickets: its goodbyes have a ticket, and it counts who brings one. No order needs it.
	CanTickets Ability = "tickets"
)

// What a status can say at most.
const (
	MaxAbilities = 64
	MaxAbility   = 64 // bytes of one
)

func checkAbilities(can []Ability) error {
	if len(can) > MaxAbilities {
		return fmt.Errorf("can has %d entries; it must have at most %d", len(can), MaxAbilities)
	}
	for _, a := range can {
		if a == "" || len(a) > MaxAbility {
			return fmt.Errorf("can has an entry of %d bytes; it must have 1 to %d", len(a), MaxAbility)
		}
	}
	return nil
}

// Needs lists what an instance must be able to for the order to mean there what it
// says.
func (o Order) Needs() (needs []Ability) {
	if o.LevelName() != Rollout {
		needs = append(needs, CanLevels)
	}
	if o.From != nil {
		needs = append(needs, CanFrom)
	}
	if o.NoticeMS > 0 {
		needs = append(needs, CanAsk)
	}
	return needs
}

// Needs is that of a release.
func (r Release) Needs() (needs []Ability) {
	if r.LevelName() != Rollout {
		needs = append(needs, CanLevels)
	}
	return needs
}

// Lacks lists those of the needs that the instance does not have.
func (s Status) Lacks(needs []Ability) (lacks []Ability) {
	for _, need := range needs {
		if !slices.Contains(s.Can, need) {
			lacks = append(lacks, need)
		}
	}
	return lacks
}

// Unable is that an instance lacks what an order needs: it was not given, and nothing
// was changed.
type Unable struct{ Lacks []Ability }

func (u *Unable) Error() string {
	words := make([]string, len(u.Lacks))
	for i, a := range u.Lacks {
		words[i] = string(a)
	}
	return fmt.Sprintf("it cannot do what the order means, so it was not told: its status does not say that it can %s; update the instance", strings.Join(words, ", "))
}
