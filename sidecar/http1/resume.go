package http1

import "encoding/json"

// standing is Messages as they stand, as JSON.
type standing struct {
	From    Side     `json:"from"`
	Answers string   `json:"answers,omitempty"`
	Head    Head     `json:"head"`
	Length  int64    `json:"length"`
	Chunked bool     `json:"chunked,omitempty"`
	Minor   byte     `json:"minor"`
	Part    part     `json:"part"`
	Line    []byte   `json:"line,omitempty"`
	Size    int      `json:"size,omitempty"`
	Last    [10]byte `json:"last"`
	Left    uint64   `json:"left,omitempty"`
}

// MarshalJSON is the Messages as they stand, so that they can go on in another
// process.
func (m Messages) MarshalJSON() ([]byte, error) {
	return json.Marshal(standing{m.From, m.Answers, m.Head, m.Head.length, m.Head.chunked, m.Head.minor, m.part, m.line, m.size, m.last, m.left})
}

// UnmarshalJSON takes over what MarshalJSON gave.
func (m *Messages) UnmarshalJSON(b []byte) error {
	var s standing
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	*m = Messages{From: s.From, Answers: s.Answers, Head: s.Head, part: s.Part, line: s.Line, size: s.Size, last: s.Last, left: s.Left}
	m.Head.length, m.Head.chunked, m.Head.minor = s.Length, s.Chunked, s.Minor
	return nil
}
