//go:build real

package rolloutd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
	nats "github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"

	"github.com/sluice-proxy/sluice/discovery"
)

// natsServer is nats-server with nats.go: the server speaks first, and a client
// keeps its subscriptions when it reconnects.
var natsServer = product{
	service: "nats", protocol: "tcp", mode: "tcp",
	serve: func(w *world, id discovery.InstanceID, _ discovery.Colour) (string, func()) {
		s, err := nats.NewServer(&nats.Options{ServerName: string(id), Host: "127.0.0.1", Port: nats.RANDOM_PORT, NoLog: true, NoSigs: true})
		w.must(err)
		s.Start()
		w.t.Cleanup(s.Shutdown)
		if !s.ReadyForConnections(patience) {
			w.t.Fatalf("%s is not ready", id)
		}
		return s.Addr().String(), func() { s.Shutdown(); s.WaitForShutdown() }
	},
	connect: func(w *world, addr netip.AddrPort, g *guests) func(context.Context) error {
		conns := make([]*natsgo.Conn, g.size)
		subject := func(i int) string { return fmt.Sprintf("client.%d", i) }
		w.must(g.each(func(i int) error {
			c, err := natsgo.Connect("nats://"+addr.String(),
				natsgo.Timeout(20*time.Second), // the default of 2s is little on a busy machine
				natsgo.MaxReconnects(-1), natsgo.ReconnectWait(100*time.Millisecond), natsgo.ReconnectJitter(100*time.Millisecond, 0),
				natsgo.NoCallbacksAfterClientClose(),
				natsgo.ConnectHandler(func(c *natsgo.Conn) { g.joinedAt(i, c.ConnectedServerName()) }),
				natsgo.ReconnectHandler(func(c *natsgo.Conn) { g.joinedAt(i, c.ConnectedServerName()) }),
				natsgo.ReconnectErrHandler(func(_ *natsgo.Conn, err error) { g.refused(i, err) }),
				natsgo.DisconnectErrHandler(func(_ *natsgo.Conn, err error) { g.left(i, errors.Is(err, io.EOF), fmt.Sprint(err)) }),
			)
			if err != nil {
				return err
			}
			w.t.Cleanup(c.Close)
			conns[i] = c
			_, err = c.Subscribe(subject(i), func(m *natsgo.Msg) { _ = m.Respond(m.Data) })
			return err
		}))
		return func(ctx context.Context) error {
			return g.each(func(i int) error {
				_, err := conns[i].RequestWithContext(ctx, subject(i), []byte("still there?"))
				return err
			})
		}
	},
}

// mochi is an MQTT broker with Eclipse's paho: the client speaks first and
// subscribes again when it reconnects.
var mochi = product{
	service: "mqtt", protocol: "tcp", mode: "auto",
	serve: func(w *world, id discovery.InstanceID, _ discovery.Colour) (string, func()) {
		s := mqtt.New(&mqtt.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)})
		listener := listeners.NewTCP(listeners.Config{ID: "clients", Address: "127.0.0.1:0"})
		w.must(errors.Join(s.AddHook(new(auth.AllowHook), nil), s.AddListener(listener), s.Serve(),
			s.Publish("server", []byte(id), true, 0))) // retained: whoever subscribes hears it
		stop := sync.OnceFunc(func() { _ = s.Close() })
		w.t.Cleanup(stop)
		return listener.Address(), stop
	},
	connect: func(w *world, addr netip.AddrPort, g *guests) func(context.Context) error {
		conns := make([]paho.Client, g.size)
		heard := make([]chan struct{}, g.size)
		topic := func(i int) string { return fmt.Sprintf("client/%d", i) }
		w.must(g.each(func(i int) error {
			heard[i] = make(chan struct{}, 1)
			said := func(_ paho.Client, m paho.Message) {
				if m.Topic() == "server" {
					g.joinedAt(i, string(m.Payload()))
				} else {
					heard[i] <- struct{}{}
				}
			}
			conns[i] = paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + addr.String()).SetClientID(topic(i)).
				SetMaxReconnectInterval(time.Second).SetOrderMatters(false).
				SetOnConnectHandler(func(c paho.Client) { c.SubscribeMultiple(map[string]byte{topic(i): 1, "server": 0}, said) }).
				SetConnectionLostHandler(func(_ paho.Client, err error) { g.left(i, errors.Is(err, io.EOF), err.Error()) }).
				SetConnectionNotificationHandler(func(_ paho.Client, n paho.ConnectionNotification) {
					if failed, ok := n.(paho.ConnectionNotificationFailed); ok {
						g.refused(i, failed.Reason)
					}
				}))
			w.t.Cleanup(func() { conns[i].Disconnect(0) })
			return done(w.ctx, conns[i].Connect())
		}))
		return func(ctx context.Context) error {
			return g.each(func(i int) error {
				if err := done(ctx, conns[i].Publish(topic(i), 1, false, "still there?")); err != nil {
					return err
				}
				select {
				case <-heard[i]:
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			})
		}
	},
}

// done waits for what paho has been asked to do.
func done(ctx context.Context, token paho.Token) error {
	select {
	case <-token.Done():
		return token.Error()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
