package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"

	"github.com/coder/websocket"

	"github.com/cleatkv/cleat/internal/auth"
	"github.com/cleatkv/cleat/internal/config"
	"github.com/cleatkv/cleat/internal/server"
)

// startWebSocket opens the listener for browsers, if there shall be one. Behind the upgrade its
// connections are like all others.
func (n *node) startWebSocket() error {
	w := n.cfg.Load().WebSocket
	if w.Port == 0 {
		return nil
	}
	l, err := listen(w.Host, w.Port)
	if err != nil {
		return fmt.Errorf("can't listen to the websocket port: %w", err)
	}
	n.front.SetWebSocketAddr(l.Addr().(*net.TCPAddr))
	scheme := "ws"
	if w.TLS != nil {
		t, err := w.TLS.ServerConfig()
		if err != nil {
			return errors.Join(err, l.Close())
		}
		scheme, l = "wss", tls.NewListener(l, t)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &http.Server{
		Handler: n.upgrade(ctx, &w), ReadHeaderTimeout: w.HandshakeTimeout,
		ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			n.log.Error(fmt.Sprintf("Error serving the websocket port: %v", err))
		}
	}()
	n.onStop(func() error {
		err := s.Close()
		<-done
		cancel() // The front end has closed the connections that were upgraded.
		return err
	})
	n.log.Info(fmt.Sprintf("Listening for websocket clients on %s://%s", scheme, server.Shown(w.Host, l.Addr())))
	n.ports.WebSocket = portURLs(scheme, l.Addr())
	return nil
}

// upgrade makes connections of requests and hands them to the front end.
func (n *node) upgrade(ctx context.Context, w *config.WebSocket) http.Handler {
	options := &websocket.AcceptOptions{
		InsecureSkipVerify: true, // allowedOrigin has looked, by nats-server's rules.
	}
	if w.Compression {
		options.CompressionMode = websocket.CompressionNoContextTakeover
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !allowedOrigin(w, r) {
			http.Error(rw, "origin not allowed", http.StatusForbidden)
			return
		}
		for k, v := range w.Headers {
			rw.Header().Set(k, v)
		}
		c, err := websocket.Accept(rw, r, options)
		if err != nil {
			n.log.Debug(fmt.Sprintf("websocket handshake failed: %v", err))
			return
		}
		n.front.Serve(websocket.NetConn(ctx, c, websocket.MessageBinary), auth.WebSocket)
	})
}

// allowedOrigin applies the rules about origins. Without any all are welcome, as with nats-server:
// clients authenticate by what they send, not by what a browser adds. It refuses origins beside the list, and by same_origin those that are not this server
// itself, even when they are on the list. Only browsers send any.
func allowedOrigin(w *config.WebSocket, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	if w.SameOrigin && u.Host != r.Host {
		return false
	}
	if len(w.AllowedOrigins) == 0 {
		return true
	}
	for _, a := range w.AllowedOrigins {
		if allowed, err := url.Parse(a); err == nil && allowed.Scheme == u.Scheme && allowed.Host == u.Host {
			return true
		}
	}
	return false
}
