package config

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// websocket reads the listener for browsers.
func (l *loader) websocket(v value) {
	if _, ok := v.raw.(map[string]any); !ok {
		l.fail(v, "Expected websocket to be a map, got %s", v)
		return
	}
	w := &l.cfg.WebSocket
	l.block(v, fields{
		"listen":      l.listen(&w.Host, &w.Port),
		"port":        l.port(&w.Port),
		"host net":    l.str(&w.Host),
		"advertise":   l.ignore("clients are not told of other addresses for websockets"),
		"no_tls":      l.boolean(&w.NoTLS),
		"tls":         l.tlsInto(&w.TLS),
		"same_origin": l.boolean(&w.SameOrigin),
		"allowed_origins allowed_origin allow_origins allow_origin origins origin": l.strs(&w.AllowedOrigins),
		"handshake_timeout":            l.duration(&w.HandshakeTimeout),
		"compress compression":         l.boolean(&w.Compression),
		"headers":                      l.strMap(&w.Headers),
		"authorization authentication": l.refuse("clients here are the same as on the main listener"),
		"jwt_cookie user_cookie pass_cookie token_cookie": l.ignore("credentials are not taken from cookies"),
		"no_auth_user":  l.ignore("the main one counts here too"),
		"ping_interval": l.ignore("the main one counts here too"),
	}, unknownField)
}

// checkWebSocket judges the listener, if there is one.
func (c *Config) checkWebSocket() error {
	w := &c.WebSocket
	if w.Port == 0 {
		return nil
	}
	if w.TLS == nil && !w.NoTLS {
		return errors.New("websocket requires TLS configuration")
	}
	for _, o := range w.AllowedOrigins {
		u, err := url.ParseRequestURI(o)
		switch {
		case err != nil:
			return fmt.Errorf("unable to parse allowed origin: %v", err)
		case u.Scheme != "http" && u.Scheme != "https":
			return fmt.Errorf("unable to parse allowed origin %q: allowed origins must be absolute URLs with http or https scheme", o)
		case u.Host == "":
			return fmt.Errorf("unable to parse allowed origin %q: host is required", o)
		}
	}
	for key := range w.Headers {
		switch k := strings.ToLower(key); {
		case strings.HasPrefix(k, "sec-websocket-"):
			return fmt.Errorf("websocket: invalid header %q, \"Sec-WebSocket-\" prefix not allowed", key)
		case k == "host", k == "content-length", k == "connection", k == "upgrade", k == "nats-no-masking":
			return fmt.Errorf("websocket: invalid header %q not allowed", key)
		}
	}
	return nil
}
