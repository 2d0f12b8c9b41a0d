package rollout

import "fmt"

// GateAnswer is what a gate said when the plan was made.
type GateAnswer struct {
	Name string `json:"name"`
	// At is when a rollout asks it; empty is at every moment.
	At         []Moment `json:"at,omitempty"`
	Open       bool     `json:"open"`
	Unanswered bool     `json:"unanswered,omitempty"`
	Text       string   `json:"text"`
}

// Answered is the plan with what its gates said, by name. A closed gate is no problem:
// the promotion waits for it, with everything as it was.
func (p Plan) Answered(said map[string]Reading) Plan {
	for _, g := range p.Policy.Gates {
		r, ok := said[g.Name]
		if !ok {
			r = Reading{Unanswered: true, Text: "gate " + g.Name + " was not asked"}
		}
		p.Gates = append(p.Gates, GateAnswer{Name: g.Name, At: g.At, Open: r.Open, Unanswered: r.Unanswered, Text: r.Text})
		switch {
		case g.Asked(AtStart) && !r.Open:
			p.Notes = append(p.Notes, fmt.Sprintf("gate %s is closed now: promote waits for it before anything moves", g.Name))
		case !g.Asked(AtStart) && !g.Asked(AtStep) && !p.Policy.soaks():
			p.Notes = append(p.Notes, fmt.Sprintf("gate %s is never asked: it belongs to soaks, and there is none", g.Name))
		}
	}
	return p
}
