package monitor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"expvar"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// How long a client may take; monitoring must not collect connections that do nothing.
const (
	readHeaderTimeout = 10 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
)

// Monitor answers questions about a server. Its methods named after a path return what that path
// shows.
type Monitor struct {
	src      Sources
	log      *slog.Logger
	process  process
	requests map[string]*atomic.Uint64 // by path, fixed once made
	registry *prometheus.Registry
	mux      *http.ServeMux
	http     *http.Server
	done     chan struct{}
}

// page is what one path shows.
type page struct {
	path, alias string
	title       string
	show        func(*http.Request) (body any, code int, err error)
}

// New makes a monitor of these sources. It listens only once Serve is called.
func New(src Sources, log *slog.Logger) *Monitor {
	m := &Monitor{src: src, log: log, requests: make(map[string]*atomic.Uint64), done: make(chan struct{})}
	metrics := m.newMetrics()
	m.mux = http.NewServeMux()
	base := src.Config().Monitor.BasePath
	if base == "/" {
		base = ""
	}
	pages := m.pages()
	for _, p := range pages {
		count := new(atomic.Uint64)
		m.requests[p.path] = count
		handler := m.handler(p, count)
		m.mux.HandleFunc("GET "+base+p.path, handler)
		if p.alias != "" {
			m.mux.HandleFunc("GET "+base+p.alias, handler)
		}
	}
	root := new(atomic.Uint64)
	m.requests["/"] = root
	m.mux.HandleFunc("GET "+base+"/{$}", func(w http.ResponseWriter, r *http.Request) {
		root.Add(1)
		m.index(w, base, pages)
	})
	m.mux.HandleFunc("GET "+base+"/stacksz", m.stacks)
	m.mux.Handle("GET "+base+"/metrics", metrics)
	m.mux.Handle("GET "+base+"/debug/vars", expvar.Handler())
	return m
}

// pages are the JSON paths in the order of the index.
func (m *Monitor) pages() []page {
	return []page{
		{"/varz", "", "General", func(*http.Request) (any, int, error) { return m.Varz(), http.StatusOK, nil }},
		{"/jsz", "", "JetStream", func(r *http.Request) (any, int, error) {
			q, err := parseJszQuery(r.URL.Query())
			return m.Jsz(q), http.StatusOK, err
		}},
		{"/connz", "", "Connections", func(r *http.Request) (any, int, error) {
			q, err := parseConnzQuery(r.URL.Query())
			return m.Connz(q), http.StatusOK, err
		}},
		{"/accountz", "", "Accounts", func(r *http.Request) (any, int, error) {
			a, err := m.Accountz(r.URL.Query().Get("acc"))
			return a, http.StatusOK, err
		}},
		{"/accstatz", "", "Account Stats", func(r *http.Request) (any, int, error) {
			q, err := parseAccstatzQuery(r.URL.Query())
			return m.Accstatz(q), http.StatusOK, err
		}},
		{"/subsz", "/subscriptionsz", "Subscriptions", func(r *http.Request) (any, int, error) {
			q, err := parseSubszQuery(r.URL.Query())
			return m.Subsz(q), http.StatusOK, err
		}},
		{"/routez", "", "Routes", func(*http.Request) (any, int, error) { return m.Routez(), http.StatusOK, nil }},
		{"/healthz", "", "Health Probe", func(r *http.Request) (any, int, error) {
			q, err := parseHealthzQuery(r.URL.Query())
			if err != nil {
				return nil, http.StatusBadRequest, err
			}
			h, code := m.Healthz(q)
			return h, code, nil
		}},
		{"/raftz", "", "Raft", func(r *http.Request) (any, int, error) {
			v := r.URL.Query()
			groups, err := m.Raftz(RaftzQuery{Account: v.Get("acc"), Group: v.Get("group")})
			if err != nil {
				return nil, http.StatusNotFound, err
			}
			return groups, http.StatusOK, nil
		}},
		{"/gatewayz", "", "", func(*http.Request) (any, int, error) { return m.Gatewayz(), http.StatusOK, nil }},
		{"/leafz", "", "", func(*http.Request) (any, int, error) { return m.Leafz(), http.StatusOK, nil }},
	}
}

// Handle adds another page, such as the console, below the base path.
func (m *Monitor) Handle(pattern string, h http.Handler) { m.mux.Handle(pattern, h) }

// Serve listens until Close. It returns the address at once.
func (m *Monitor) Serve(l net.Listener, tlsConfig *tls.Config) {
	m.http = &http.Server{
		Handler:           m.mux,
		ReadHeaderTimeout: readHeaderTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
	}
	if tlsConfig != nil {
		l = tls.NewListener(l, tlsConfig)
	}
	go func() {
		defer close(m.done)
		if err := m.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			m.log.Error(fmt.Sprintf("Error serving the monitoring port: %v", err))
		}
	}()
}

// Close stops listening, gives requests under way until ctx is done, and waits.
func (m *Monitor) Close(ctx context.Context) error {
	if m.http == nil {
		return nil
	}
	err := m.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, m.http.Close())
	}
	<-m.done
	return err
}

// handler shows one page as JSON, or as a call of a function when ?callback= names one.
func (m *Monitor) handler(p page, count *atomic.Uint64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		count.Add(1)
		w.Header().Set("Access-Control-Allow-Origin", "*")
		body, code, err := p.show(r)
		if err != nil {
			w.WriteHeader(max(code, http.StatusBadRequest))
			fmt.Fprint(w, err)
			return
		}
		data, err := marshal(body, p.path != "/healthz")
		if err != nil {
			m.log.Error(fmt.Sprintf("Error marshaling response to %s request: %v", p.path, err))
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		if name := r.URL.Query().Get("callback"); name != "" {
			if !validCallback(name) {
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprint(w, "invalid callback name")
				return
			}
			w.Header().Set("Content-Type", "application/javascript")
			w.WriteHeader(code)
			fmt.Fprintf(w, "%s(%s)", name, data)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write(data) // Who asked has gone; there is nobody to tell.
	}
}

func marshal(body any, indent bool) ([]byte, error) {
	if indent {
		return json.MarshalIndent(body, "", "  ")
	}
	return json.Marshal(body)
}

// validCallback accepts names of functions, so that an answer cannot be made to carry a script.
func validCallback(name string) bool {
	for _, c := range name {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '$', c == '.':
		default:
			return false
		}
	}
	return true
}

// index lists the pages for whoever looks with a browser.
func (m *Monitor) index(w http.ResponseWriter, base string, pages []page) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>cleat</title></head>\n<body>\n<h1>cleat</h1>\n<ul>\n")
	for _, p := range pages {
		if p.title != "" {
			fmt.Fprintf(w, "<li><a href=\"%s%s\">%s</a></li>\n", base, p.path, p.title)
		}
	}
	fmt.Fprintf(w, "<li><a href=\"%s/metrics\">Metrics</a></li>\n</ul>\n</body>\n</html>\n", base)
}

// stacks prints what every goroutine does.
func (m *Monitor) stacks(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_ = pprof.Lookup("goroutine").WriteTo(w, 2) // Who asked has gone; there is nobody to tell.
}
