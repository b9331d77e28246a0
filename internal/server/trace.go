package server

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/cleatkv/cleat/internal/wire"
)

// LevelTrace is the level at which the operations of clients are logged.
const LevelTrace = slog.LevelDebug - 4

func (c *conn) tracing() bool {
	return c.opts.Logger.Enabled(context.Background(), LevelTrace)
}

// trace logs one operation as it came, the secrets of CONNECT and payloads apart.
func (c *conn) trace(op *wire.Op) {
	var text string
	switch op.Kind {
	case wire.Connect:
		text = "CONNECT"
	case wire.Pub, wire.HPub:
		text = fmt.Sprintf("PUB %s %s %d", op.Subject, op.Reply, len(op.Header)+len(op.Data))
	case wire.Sub:
		text = fmt.Sprintf("SUB %s %s %s", op.Subject, op.Queue, op.Sid)
	case wire.Unsub:
		text = fmt.Sprintf("UNSUB %s %d", op.Sid, op.Max)
	case wire.PingOp:
		text = "PING"
	case wire.PongOp:
		text = "PONG"
	default:
		return
	}
	c.opts.Logger.Log(context.Background(), LevelTrace, "<<- ["+text+"]", "client", c.String())
}
