package drain

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"

	"github.com/sluice-proxy/sluice/rollout/drain/bearer"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/drain/strictjson"
)

// Endpoint serves the contract at /drain: GET answers a contract.Status, PUT takes
// an Order, DELETE a Release. Errors are {"error":"one sentence"}: 400 broken
// order, 401 wrong token, 403 not from loopback (without a token), 404 another
// path, 405 another method, 409 older than the last word, 413 too large.
//
// It should have a listener of its own, or a path that no proxy forwards. Keep
// serving it while Shutdown runs.
func (g *Gate) Endpoint() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, code, err := g.answer(w, r)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if err != nil {
			w.WriteHeader(code)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
			return
		}
		_ = json.NewEncoder(w).Encode(s)
	})
}

func (g *Gate) answer(w http.ResponseWriter, r *http.Request) (contract.Status, int, error) {
	if code, err := g.allowed(r); err != nil {
		if code == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		return contract.Status{}, code, err
	}
	if r.URL.Path != "/drain" {
		return contract.Status{}, http.StatusNotFound, fmt.Errorf("there is nothing at %q; the drain endpoint is /drain", r.URL.Path)
	}
	switch r.Method {
	case http.MethodGet:
		return g.Status(), 0, nil
	case http.MethodPut:
		var o contract.Order
		if code, err := decode(http.MaxBytesReader(w, r.Body, contract.MaxBody), &o); err != nil {
			return contract.Status{}, code, err
		}
		if err := o.Check(); err != nil {
			return contract.Status{}, http.StatusBadRequest, err
		}
		if lacks := (contract.Status{Can: g.can()}).Lacks(o.Needs()); lacks != nil {
			return contract.Status{}, http.StatusBadRequest, &contract.Unable{Lacks: lacks}
		}
		s, err := g.order(o)
		return s, http.StatusConflict, err
	case http.MethodDelete:
		var rel contract.Release
		if code, err := decode(http.MaxBytesReader(w, r.Body, contract.MaxBody), &rel); err != nil {
			return contract.Status{}, code, err
		}
		if err := rel.Check(); err != nil {
			return contract.Status{}, http.StatusBadRequest, err
		}
		s, err := g.release(rel)
		return s, http.StatusConflict, err
	}
	w.Header().Set("Allow", "GET, PUT, DELETE")
	return contract.Status{}, http.StatusMethodNotAllowed, fmt.Errorf("%s is no method of /drain; use GET, PUT or DELETE", r.Method)
}

// allowed checks the token, or without one that the request comes straight from
// this machine: what a proxy on this machine forwards does not.
func (g *Gate) allowed(r *http.Request) (code int, err error) {
	if g.opt.Token == "" {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !peer.Addr().Unmap().IsLoopback() {
			return http.StatusForbidden, errors.New("the drain endpoint has no token, so it answers on loopback only; set a token to reach it from elsewhere")
		}
		for _, h := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "Forwarded"} {
			if r.Header.Get(h) != "" {
				return http.StatusForbidden, errors.New("the drain endpoint has no token, so it answers no request that a proxy forwards; set a token")
			}
		}
		return 0, nil
	}
	if !bearer.Shown(r, g.opt.Token) {
		return http.StatusUnauthorized, errors.New("the bearer token is missing or wrong")
	}
	return 0, nil
}

// decode reads the body; code is that of err.
func decode(body io.Reader, v any) (code int, err error) {
	err = strictjson.Decode(body, v)
	if err == nil {
		return 0, nil
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return http.StatusRequestEntityTooLarge, fmt.Errorf("the body is larger than %d bytes", contract.MaxBody)
	}
	return http.StatusBadRequest, fmt.Errorf("the body is not what /drain takes: %w", err)
}

// Guard serves next to those whom Endpoint answers, and tells the others why not as
// Endpoint does: for what an instance offers beside the contract.
func (g *Gate) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code, err := g.allowed(r)
		if err == nil {
			next.ServeHTTP(w, r)
			return
		}
		if code == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
	})
}

// can is what the gate understands.
func (g *Gate) can() (can []contract.Ability) {
	if g.opt.Notice > 0 {
		can = append(can, contract.CanAsk)
	}
	if !g.opt.Nodeless {
		can = append(can, contract.CanFrom)
	}
	can = append(can, contract.CanLevels)
	if g.book != nil {
		can = append(can, contract.CanTickets)
	}
	return can
}
