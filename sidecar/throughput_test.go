package sidecar_test

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/sidecar"
)

// plainProxy is what a sidecar is measured against: io.Copy in both directions.
func plainProxy(b *testing.B, to string) string {
	ln := listen(b)
	go func() {
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			go func() {
				s, err := net.Dial("tcp", to)
				if err != nil {
					b.Error(err)
					return
				}
				defer c.Close()
				defer s.Close()
				var both sync.WaitGroup
				copyOn := func(dst, src net.Conn) {
					_, _ = io.Copy(dst, src)
					_ = dst.(*net.TCPConn).CloseWrite()
				}
				both.Go(func() { copyOn(s, c) })
				both.Go(func() { copyOn(c, s) })
				both.Wait()
			}()
		}
	}()
	return ln.Addr().String()
}

// sender upgrades and then sends size bytes in frames.
func sender(b *testing.B, size, payload int) string {
	ln := listen(b)
	frame := binary.BigEndian.AppendUint64([]byte{0x82, 127}, uint64(payload))
	if payload < 1<<16 {
		frame = binary.BigEndian.AppendUint16([]byte{0x82, 126}, uint16(payload))
	}
	frame = append(frame, make([]byte, payload)...)
	block := frame
	for len(block) < 64<<10 {
		block = append(block, frame...)
	}
	go func() {
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = c.Read(make([]byte, 4<<10))
				_, _ = io.WriteString(c, switching)
				for sent := 0; sent < size; sent += len(block) {
					if _, err := c.Write(block); err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

func receive(b *testing.B, addr string) time.Duration {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, upgrade)
	begin := time.Now()
	buf := make([]byte, 256<<10)
	for {
		if _, err := c.Read(buf); err != nil {
			return time.Since(begin)
		}
	}
}

// BenchmarkThroughput compares, in turns, a sidecar with a proxy that is nothing
// but io.Copy (which splices).
func BenchmarkThroughput(b *testing.B) {
	const size = 64 << 20
	for _, payload := range []struct {
		name string
		n    int
	}{{"frames of 1 KiB", 1 << 10}, {"frames of 1 MiB", 1 << 20}} {
		for _, mode := range []sidecar.Mode{sidecar.TCP, sidecar.WebSocket} {
			b.Run(payload.name+"/"+string(mode), func(b *testing.B) {
				to := sender(b, size, payload.n)
				plain := plainProxy(b, to)
				s, err := sidecar.New(sidecar.Options{To: to, Mode: mode})
				if err != nil {
					b.Fatal(err)
				}
				ln := listen(b)
				go func() { _ = s.Serve(b.Context(), ln) }()
				var ours, theirs, ratios []float64
				for b.Loop() {
					for range 15 { // enough for a median on a busy machine
						t, o := receive(b, plain), receive(b, ln.Addr().String())
						theirs, ours = append(theirs, size/1e6/t.Seconds()), append(ours, size/1e6/o.Seconds())
						ratios = append(ratios, t.Seconds()/o.Seconds())
					}
				}
				b.ReportMetric(median(ours), "MB/s")
				b.ReportMetric(median(theirs), "plain-MB/s")
				b.ReportMetric(median(ratios), "of-plain")
			})
		}
	}
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}
