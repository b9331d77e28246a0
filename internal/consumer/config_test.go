package consumer

import (
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
)

// The nats tool sends pause_until with the zero time for every consumer. It asks for no pause, and so
// for nothing of API level 1.
func TestNormalizeZeroPause(t *testing.T) {
	later := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct{ sent, want *time.Time }{{&time.Time{}, nil}, {&later, &later}, {nil, nil}} {
		cfg := &api.ConsumerConfig{Durable: "C", PauseUntil: tt.sent}
		Normalize(cfg, &api.StreamConfig{})
		if !sameTime(cfg.PauseUntil, tt.want) {
			t.Errorf("pause_until %v became %v, want %v", tt.sent, cfg.PauseUntil, tt.want)
		}
	}
}
