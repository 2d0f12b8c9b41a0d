package sidecar

import (
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/wsframe"
	"github.com/sluice-proxy/sluice/sidecar/http1"
)

// maxAsked bounds the requests of one client that wait for their responses. More
// are no HTTP that anybody speaks.
const maxAsked = 100

// dialogue follows what client and server say to each other as far as needed to
// know who is there and how to let them go: requests and responses, or whether it
// has become a WebSocket, and where its messages begin and end. It changes nothing
// and does no I/O; its methods may be called concurrently, but client and server
// from one goroutine each.
type dialogue struct {
	mu    sync.Mutex
	phase phase

	// Of the phases silent and talking; nil later.
	http *exchanges

	up, down wsframe.Tracker
	asked    time.Time // for the WebSocket
	told     bool      // the client has had our close frame
	heard    bool      // … and has answered it
}

// exchanges are the requests and responses of a connection.
type exchanges struct {
	requests, responses http1.Messages
	begun               int       // requests that have begun and are not answered in full
	asked               []request // … of these the ones whose head is complete
	ahead               bool      // the client has said something behind a handshake that is not answered
	lasting             bool      // the response under way is held as a connection
	interim             bool      // … is one that another follows
	refused             bool      // the request that has begun last is not passed on
}

// request is one that is not answered in full.
type request struct {
	method    string
	handshake bool // of a WebSocket
	at        time.Time
}

type phase uint8

const (
	silent   phase = iota // nobody has said anything
	talking               // HTTP/1
	switched              // frames of a WebSocket
	opaque                // bytes
)

// turn is what the bytes that were taken have come to.
type turn uint8

const (
	onward   turn = iota
	begins        // behind what was taken a request begins
	asks          // its head is complete
	opens         // the server has accepted the WebSocket
	streams       // the response is one that lasts
	rests         // the last response is complete, nothing is under way
	raw           // from here on it is bytes
	http2         // the client speaks HTTP/2
	answered      // what follows answers our close frame
)

// farewell is how the client can be told that its connection ends.
type farewell uint8

const (
	later    farewell = iota // something is under way, which has to end first
	byFrame                  // with a close frame
	byChunk                  // with the last chunk of its events
	byFIN                    // without a word
	unneeded                 // the server has sent a close frame itself
)

func newDialogue() *dialogue {
	return &dialogue{
		http: &exchanges{responses: http1.Messages{From: http1.Server}},
		up:   wsframe.Tracker{From: wsframe.Client}, down: wsframe.Tracker{From: wsframe.Server},
	}
}

// client takes what the client said, up to where something comes of it, and says
// how much that is; call it before the server hears it.
func (d *dialogue) client(p []byte) (n int, t turn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.phase == opaque:
		return len(p), onward
	case d.phase == switched && d.told:
		return d.untilAnswer(p)
	case d.phase == switched:
		d.up.Follow(p)
		return len(p), onward
	}
	x := d.http
	if last := len(x.asked) - 1; last >= 0 && x.asked[last].handshake && x.begun == len(x.asked) {
		x.ahead = true
		d.up.Follow(p)
		return len(p), onward
	}
	n, e := x.requests.Next(p)
	switch {
	case e&http1.Preface != 0 && d.phase == talking && x.begun == 1 && len(x.asked) == 0:
		return n, http2
	case e&(http1.Lost|http1.Preface) != 0, e&http1.Headed != 0 && len(x.asked) == maxAsked:
		d.become(opaque)
		return len(p), raw
	case e&http1.Began != 0:
		d.phase = talking
		x.begun++
		return n, begins
	case e&http1.Headed != 0:
		head := x.requests.Head
		if x.refused {
			return n, asks
		}
		x.asked = append(x.asked, request{head.Method, head.WebSocket && head.Method == "GET", time.Now()})
		return n, asks
	}
	return n, onward
}

// untilAnswer takes the client's frames up to its close frame. One that is not
// legal is taken for it: some clients do not mask what they answer.
func (d *dialogue) untilAnswer(p []byte) (n int, t turn) {
	for n < len(p) && !d.heard {
		if d.up.Between() && p[n]&0x0f == wsframe.Close {
			d.heard = true
			break
		}
		ahead := d.up
		took := ahead.Next(p[n:])
		if ahead.Lost() && !d.up.Lost() {
			d.heard = true
			break
		}
		d.up = ahead
		n += took
	}
	if d.heard {
		return n, answered
	}
	return n, onward
}

func (d *dialogue) become(p phase) { d.phase, d.http = p, nil }

// server takes what the server said, at most up to the end of the head, message or
// frame that is under way, and says how much that is: at least one byte if p has one.
func (d *dialogue) server(p []byte) (n int, t turn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch d.phase {
	case opaque:
		return len(p), onward
	case switched:
		return d.down.Next(p), onward
	}
	x := d.http
	if len(x.asked) == 0 { // a server that speaks first
		d.become(opaque)
		return len(p), raw
	}
	first := x.asked[0]
	x.responses.Answers = first.method
	n, e := x.responses.Next(p)
	head := x.responses.Head
	switch {
	case e&http1.Lost != 0, e&http1.Headed != 0 && head.Status == 101 && !(first.handshake && head.WebSocket):
		d.become(opaque)
		return len(p), raw
	case e&http1.Headed != 0 && head.Status == 101:
		d.asked = first.at
		d.become(switched)
		return n, opens
	case e&http1.Headed != 0:
		x.interim = head.Status < 200
		if !x.interim && first.handshake && x.ahead { // what came ahead was no frames
			d.become(opaque)
			return len(p), raw
		}
	}
	if e&http1.Ended != 0 && !x.interim {
		x.asked = x.asked[1:]
		x.begun--
		x.lasting = false
		if x.begun == 0 {
			x.asked = nil
			return n, rests
		}
		return n, onward
	}
	if e&http1.Headed != 0 && head.EventStream {
		return n, streams
	}
	return n, onward
}

// frames takes all that the server said, where it is frames; false if it is not.
func (d *dialogue) frames(p []byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.phase == switched {
		d.down.Follow(p)
	}
	return d.phase == switched
}

// refuseRequest says that the request that has begun is not passed on.
func (d *dialogue) refuseRequest() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.http.refused = true
	d.http.begun--
}

// resting: no request that was passed on is under way.
func (d *dialogue) resting() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.http != nil && d.http.begun == 0
}

// midResponse: of a response some bytes have passed.
func (d *dialogue) midResponse() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.http != nil && d.http.responses.InHead()
}

// isWebSocket: frames pass.
func (d *dialogue) isWebSocket() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.phase == switched
}

// headless: what the client has asked last is to be answered with a head alone.
func (d *dialogue) headless() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.http != nil && d.http.requests.Head.Method == "HEAD"
}

// askedAt is when the client has asked for the WebSocket that it has now.
func (d *dialogue) askedAt() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

// lasts says that the response under way is held as a connection; false if there is
// none.
func (d *dialogue) lasts() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.http == nil || d.http.begun == 0 {
		return false
	}
	d.http.lasting = true
	return true
}

// isTold says that the client has our close frame.
func (d *dialogue) isTold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.told = true
}

// chooseFarewell is how the client can be told now. Patience waits for the end of a
// message, without it a frame's is enough.
func (d *dialogue) chooseFarewell(patience bool) farewell {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x := d.http; x != nil {
		switch {
		case x.begun == 0:
			return byFIN
		case !x.lasting:
			return later
		case x.responses.Head.EventStream && x.responses.BetweenChunks():
			return byChunk
		case x.responses.Head.EventStream && x.responses.InChunks() && patience:
			return later
		}
		return byFIN
	}
	switch {
	case d.phase == opaque || d.down.Lost():
		return byFIN
	case d.down.Closed():
		return unneeded
	case patience && d.down.InMessage(), !d.down.Between():
		return later
	}
	return byFrame
}

// clientClosed: the client has sent a close frame, whole.
func (d *dialogue) clientClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.phase == switched && d.up.Closed() && d.up.Between()
}

// serverCanBeTold: a close frame may be put into what the client says.
func (d *dialogue) serverCanBeTold() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.phase == switched && !d.up.Closed() && d.up.Between()
}

// serverTold takes the close frame that was put there.
func (d *dialogue) serverTold(frame []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.up.Follow(frame)
}

// standing is a dialogue as it stands, as JSON.
type standing struct {
	Phase     phase            `json:"phase"`
	Up        *wsframe.Tracker `json:"up,omitempty"`
	Down      *wsframe.Tracker `json:"down,omitempty"`
	Requests  *http1.Messages  `json:"requests,omitempty"`
	Responses *http1.Messages  `json:"responses,omitempty"`
	Begun     int              `json:"begun,omitempty"`
	Asked     []asking         `json:"asked,omitempty"`
	Ahead     bool             `json:"ahead,omitempty"`
	Lasting   bool             `json:"lasting,omitempty"`
	Interim   bool             `json:"interim,omitempty"`
}

type asking struct {
	Method    string    `json:"method"`
	Handshake bool      `json:"handshake,omitempty"`
	At        time.Time `json:"at"`
}

// stand is how the dialogue stands, in which nobody has had a last word.
func (d *dialogue) stand() *standing {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &standing{Phase: d.phase, Up: &d.up, Down: &d.down}
	if x := d.http; x != nil {
		s.Requests, s.Responses, s.Begun, s.Ahead, s.Lasting, s.Interim = &x.requests, &x.responses, x.begun, x.ahead, x.lasting, x.interim
		for _, r := range x.asked {
			s.Asked = append(s.Asked, asking{r.method, r.handshake, r.at})
		}
	}
	return s
}

// resume is the dialogue that goes on from there.
func (s *standing) resume() *dialogue {
	d := newDialogue()
	d.phase, d.up, d.down = s.Phase, *s.Up, *s.Down
	if s.Requests == nil {
		d.http = nil
		return d
	}
	d.http = &exchanges{requests: *s.Requests, responses: *s.Responses, begun: s.Begun, ahead: s.Ahead, lasting: s.Lasting, interim: s.Interim}
	for _, a := range s.Asked {
		d.http.asked = append(d.http.asked, request{a.Method, a.Handshake, a.At})
	}
	return d
}
