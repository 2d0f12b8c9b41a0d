package conform

import (
	"context"
	"slices"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// Rule is one rule of the drain contract.
type Rule struct {
	Name string
	Says string // what the contract demands, in a sentence

	// Of is the ability that the rule belongs to; it is checked where the instance says
	// that it has it. Empty: of version 1, which every instance keeps.
	Of contract.Ability

	connects bool     // it opens connections
	needs    []string // rules without which it says nothing
	check    func(context.Context, *instance) error
}

// anything is whichever ability.
const anything contract.Ability = "anything"

// of reports whether the rule is one for an instance of these abilities.
func (r Rule) of(can []contract.Ability) bool {
	return r.Of == "" || slices.Contains(can, r.Of) || r.Of == anything && len(can) > 0
}

// Rules are all rules, in the order in which they are checked.
func Rules() []Rule {
	return []Rule{
		{Name: "status", check: status,
			Says: "GET answers 200 with state, active, accepted, evicted, returned, limit, ceiling, epoch and step, which agree with each other"},
		{Name: "guard", check: guard, needs: []string{"status"},
			Says: "with a token, requests without it or with another get 401; without a token the endpoint answers loopback only"},
		{Name: "accept", check: accept, connects: true, needs: []string{"status"},
			Says: "a serving instance accepts connections; active and accepted count them, and one that ends by itself is no longer active and not evicted"},
		{Name: "returned", check: returned, connects: true, needs: []string{"accept"},
			Says: "returned counts no client that says nothing of having been here before, and is null until the application has said it of a first one"},
		{Name: "order", check: order, needs: []string{"status"},
			Says: "PUT answers 200 with the status, which shows the order: draining or drained, its rollout, epoch, step and ceiling"},
		{Name: "repeat", check: repeat, needs: []string{"order"},
			Says: "an order that is repeated gets 200 and changes nothing"},
		{Name: "stale-order", check: staleOrder, needs: []string{"order"},
			Says: "an order with an older (epoch, step) gets 409 and changes nothing"},
		{Name: "release", check: release, needs: []string{"order"},
			Says: "DELETE answers 200 with the status: serving, no ceiling; repeated it does the same"},
		{Name: "stale-release", check: staleRelease, needs: []string{"order", "release"},
			Says: "a release with an older epoch gets 409 and changes nothing"},
		{Name: "boot", check: boot, needs: []string{"order", "release"},
			Says: "boot, where the instance says it, is the same in every answer of one process, and at most 64 bytes"},
		{Name: "late-order", check: lateOrder, needs: []string{"stale-order", "release"},
			Says: "a release is the last word of its epoch: an order of that epoch that comes later gets 409 and the instance serves on"},
		{Name: "malformed", check: malformed, needs: []string{"order"},
			Says: "a body that is no JSON object gets 400 and changes nothing"},
		{Name: "wrong-type", check: wrongType, needs: []string{"order"},
			Says: "an order whose words are missing or of another type gets 400 and changes nothing"},
		{Name: "out-of-range", check: outOfRange, needs: []string{"order"},
			Says: "a negative ceiling, and an over_ms or start_ms that is negative or more than a day, get 400 and change nothing"},
		{Name: "method", check: method, needs: []string{"order"},
			Says: "another method than GET, PUT and DELETE gets 405 and changes nothing"},
		{Name: "oversized", check: oversized, needs: []string{"order"},
			Says: "a body of a megabyte is refused and changes nothing"},
		{Name: "serve-again", check: serveAgain, connects: true, needs: []string{"accept", "release"},
			Says: "after a release new connections are accepted"},
		{Name: "refuse", check: refuse, connects: true, needs: []string{"serve-again"},
			Says: "while draining, new connections are refused: HTTP 503 with Retry-After, TCP closed, gRPC UNAVAILABLE"},
		{Name: "peers", check: peers, connects: true, needs: []string{"refuse"},
			Says: "peers, where the instance says them, hold what is active, requests and lingering, by the address at the other end of each TCP connection, and count who is refused"},
		{Name: "ceiling", check: ceiling, connects: true, needs: []string{"serve-again"},
			Says: "exactly so many connections are closed that the ceiling is reached, and no more when no order follows"},
		{Name: "hold", check: hold, connects: true, needs: []string{"ceiling"},
			Says: "an order with ceiling null, or above what is held, closes nothing"},
		{Name: "pace", check: pace, connects: true, needs: []string{"ceiling"},
			Says: "of n closes the first comes start_ms after the order, the others at distances of over_ms/n"},
		{Name: "goodbye", check: goodbye, connects: true, needs: []string{"ceiling"},
			Says: "a connection that is let go is told so: WebSocket by a close frame 1012, TCP by a FIN, gRPC by UNAVAILABLE"},
		{Name: "evicted", check: evicted, connects: true, needs: []string{"ceiling"},
			Says: "what the funnel closes is counted as evicted and no longer as active"},
		{Name: "drained", check: drained, connects: true, needs: []string{"ceiling"},
			Says: "drained is said when all have gone: active is 0 and, where the instance says them, requests and lingering are 0 too"},
		{Name: "natural", check: natural, connects: true, needs: []string{"pace", "evicted"},
			Says: "connections that end by themselves during a step are not closed in addition: the ceiling is a level"},
		{Name: "repeat-running", check: repeatRunning, connects: true, needs: []string{"repeat", "pace"},
			Says: "an order that is repeated while it is carried out neither restarts nor hurries it"},
		{Name: "stop", check: stop, connects: true, needs: []string{"hold", "pace"},
			Says: "a newer order with ceiling null stops a running one at once"},
		{Name: "replace", check: replace, connects: true, needs: []string{"stop"},
			Says: "a newer order replaces the running one whole: its ceiling, and its pace"},
		{Name: "release-running", check: releaseRunning, connects: true, needs: []string{"stop", "release"},
			Says: "a release stops a running order at once"},
		{Name: "unknown-word", check: unknownWord, Of: anything, needs: []string{"order"},
			Says: "an order with a word that nobody knows gets 400 and changes nothing"},
		{Name: "levels", check: levels, Of: contract.CanLevels, needs: []string{"order", "release"},
			Says: "an order of another level stands beside the rollout's, has an epoch and a release of its own, and is shown in levels"},
		{Name: "from", check: fromNodes, Of: contract.CanFrom, connects: true, needs: []string{"refuse", "ceiling", "levels"},
			Says: "an order from some nodes closes and refuses only what came through them: by x-envoy-downstream-service-node, or without it by address"},
		{Name: "tickets", check: tickets, Of: contract.CanTickets, connects: true, needs: []string{"goodbye", "serve-again"},
			Says: "each goodbye has a ticket of its own, and ticketed counts who brings one, each ticket once, and nothing that nobody gave"},
	}
}
