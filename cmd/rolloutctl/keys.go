package main

import (
	"context"
	"fmt"
	"os"
	"sync"

	"golang.org/x/term"
)

// quitKey calls quit when somebody presses q, or Ctrl-C, on the terminal, until the
// returned function is called, which gives the terminal back as it was. A terminal
// that cannot be read goes on without keys.
func quitKey(file *os.File, quit context.CancelFunc) (stop func()) {
	// A description of its own: closing it ends the read, and nobody else's mode of
	// reading changes with it.
	keys, err := os.OpenFile(fmt.Sprintf("/dev/fd/%d", file.Fd()), os.O_RDWR, 0)
	if err != nil {
		return func() {}
	}
	was, err := term.MakeRaw(int(file.Fd()))
	if err != nil {
		_ = keys.Close()
		return func() {}
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		key := make([]byte, 1)
		for {
			if _, err := keys.Read(key); err != nil {
				return
			}
			const interrupt = 3 // Ctrl-C, which a raw terminal hands on
			if key[0] == 'q' || key[0] == 'Q' || key[0] == interrupt {
				quit()
				return
			}
		}
	})
	return func() {
		_ = keys.Close()
		reading.Wait()
		_ = term.Restore(int(file.Fd()), was)
	}
}
