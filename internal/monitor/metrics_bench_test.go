package monitor

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/config"
)

// many is a server with many buckets.
type many struct {
	sample
	streams []Stream
}

func (m *many) Streams() []Stream { return m.streams }

// BenchmarkMetrics is one scrape of a server with 1,000 buckets.
func BenchmarkMetrics(b *testing.B) {
	const buckets = 1000
	s, groups := &many{}, []cluster.GroupFigures{}
	for i := range buckets {
		one := s.sample.Streams()[0]
		one.Info.Config.Name = fmt.Sprint("KV_b", i)
		one.Consumers = func() []api.ConsumerInfo { return nil }
		s.streams = append(s.streams, one)
		groups = append(groups, cluster.GroupFigures{Name: "A/" + one.Info.Config.Name, Term: 3, Committed: 12, Applied: 11})
	}
	c := &config.Config{}
	m := New(Sources{
		ServerID: "NID", ServerName: "n1", Start: started, Config: func() *config.Config { return c }, Loaded: func() time.Time { return started },
		Clients: s, Accounts: s, JetStream: s, Health: s, Raft: func() cluster.Figures { return cluster.Figures{Groups: groups} },
	}, slog.New(slog.DiscardHandler))
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		m.mux.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		if w.Code != 200 || w.Body.Len() < 100*buckets {
			b.Fatalf("status %d, %d bytes", w.Code, w.Body.Len())
		}
	}
}
