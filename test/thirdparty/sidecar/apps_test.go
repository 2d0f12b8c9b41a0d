package sidecar_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
)

// Messages that a server sends without end come in fragments of both sizes.
var fragments = []string{strings.Repeat("x", 1500), strings.Repeat("y", 200<<10)}

var message = strings.Repeat(fragments[0]+fragments[1], 3)

// app is a server written with one library: /flood sends messages without end,
// anything else is echoed. ended has the error of each read that ended one.
type app struct {
	flood, echo func(http.ResponseWriter, *http.Request) (ended error)
}

var apps = map[string]app{
	"coder": {
		flood: func(w http.ResponseWriter, r *http.Request) error {
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return err
			}
			defer c.CloseNow()
			ended := make(chan error, 1)
			go func() {
				_, _, err := c.Read(r.Context())
				ended <- err
			}()
			for {
				m, err := c.Writer(r.Context(), websocket.MessageText)
				for i := range 6 {
					if err == nil {
						_, err = io.WriteString(m, fragments[i%2])
					}
				}
				if err == nil {
					err = m.Close()
				}
				if err != nil {
					return <-ended
				}
			}
		},
		echo: func(w http.ResponseWriter, r *http.Request) error {
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return err
			}
			defer c.CloseNow()
			for {
				kind, b, err := c.Read(r.Context())
				if err != nil {
					return err
				}
				_ = c.Write(r.Context(), kind, b)
			}
		},
	},
	"gorilla": {
		flood: func(w http.ResponseWriter, r *http.Request) error {
			c, err := (&gorilla.Upgrader{WriteBufferSize: 700}).Upgrade(w, r, nil)
			if err != nil {
				return err
			}
			defer c.Close()
			ended := make(chan error, 1)
			go func() {
				_, _, err := c.ReadMessage()
				ended <- err
			}()
			for {
				m, err := c.NextWriter(gorilla.TextMessage)
				for i := range 6 {
					if err == nil {
						_, err = io.WriteString(m, fragments[i%2])
					}
				}
				if err == nil {
					err = m.Close()
				}
				if err != nil {
					return <-ended
				}
			}
		},
		echo: func(w http.ResponseWriter, r *http.Request) error {
			c, err := (&gorilla.Upgrader{}).Upgrade(w, r, nil)
			if err != nil {
				return err
			}
			defer c.Close()
			for {
				kind, b, err := c.ReadMessage()
				if err != nil {
					return err
				}
				_ = c.WriteMessage(kind, b)
			}
		},
	},
}

// closeCode is the status of the close frame that ended a connection, or 0.
func closeCode(err error) int {
	if e, ok := errors.AsType[websocket.CloseError](err); ok {
		return int(e.Code)
	}
	if e, ok := errors.AsType[*gorilla.CloseError](err); ok && e.Code != gorilla.CloseAbnormalClosure {
		return e.Code
	}
	return 0
}

// talker is a client written with one library.
type talker struct {
	read  func() (string, error) // a message; it closes when there is none
	write func(string) error
}

type dialer func(t *testing.T, url string) talker

var clients = map[string]dialer{
	"coder": func(t *testing.T, url string) talker {
		c, _, err := websocket.Dial(t.Context(), url, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadLimit(-1)
		t.Cleanup(func() { _ = c.CloseNow() })
		return talker{
			read: func() (string, error) {
				_, b, err := c.Read(t.Context())
				return string(b), err
			},
			write: func(text string) error { return c.Write(t.Context(), websocket.MessageText, []byte(text)) },
		}
	},
	"gorilla": func(t *testing.T, url string) talker {
		c, _, err := gorilla.DefaultDialer.DialContext(t.Context(), strings.Replace(url, "http", "ws", 1), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return talker{
			read: func() (string, error) {
				_, b, err := c.ReadMessage()
				if err != nil {
					_ = c.Close()
				}
				return string(b), err
			},
			write: func(text string) error { return c.WriteMessage(gorilla.TextMessage, []byte(text)) },
		}
	},
}
