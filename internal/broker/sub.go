package broker

import "sync/atomic"

// Msg is a message on its way to an internal subscription. It is valid during the callback only.
// The strings may be kept; Header and Data lie in the publisher's buffer and must be copied.
type Msg struct {
	Account *Account
	Client  *Client // The publisher; nil if the server itself published.
	Subject string
	Reply   string
	Header  []byte // The whole NATS/1.0 block, or nil.
	Data    []byte
	Out     *Batch // Collects clients to flush; flushed by whoever runs the loop.
}

// Respond publishes an answer to the message's reply subject, if it has one.
func (m *Msg) Respond(hdr, data []byte) {
	if m.Reply != "" {
		m.Account.Publish(m.Out, m.Reply, "", hdr, data)
	}
}

// Sub is one subscription: of a client, which knows it by a sid, or an internal one.
type Sub struct {
	account *Account
	subject string
	queue   string
	fn      func(*Msg) // Internal subscriptions only.

	// Imports pass messages on to another account and do not know at once if anybody takes them.
	relay    func(*delivery) bool
	shadowOf *Sub // What a stream import made this subscription for.

	remote Remote // The server that the subscription stands for interest on.
	wide   bool   // Other servers are to know of it, though it is no client's.

	client   *Client // Client subscriptions only, as all below.
	sid      string
	filtered bool         // Messages are held against the client's deny list.
	sent     atomic.Int64 // Messages delivered so far.
	max      atomic.Int64 // Removed when sent reaches it; 0 means no bound.
	closed   atomic.Bool
}

// Subject is the pattern subscribed to.
func (s *Sub) Subject() string { return s.subject }

// Queue is the queue group, or empty.
func (s *Sub) Queue() string { return s.queue }

// Sid is the client's name for the subscription.
func (s *Sub) Sid() string { return s.sid }

// Sent is the number of messages delivered so far, Max the number after which it ends (0: never).
func (s *Sub) Sent() int64 { return s.sent.Load() }
func (s *Sub) Max() int64  { return s.max.Load() }

// Close ends the subscription. A delivery that has begun elsewhere may still end after it.
func (s *Sub) Close() {
	if s.closed.Swap(true) {
		return
	}
	if s.client != nil {
		s.client.forget(s)
	}
	s.account.remove(s)
}

// admit counts one delivery and tells whether it may take place and whether it is the last.
func (s *Sub) admit() (ok, last bool) {
	if s.closed.Load() {
		return false, false
	}
	n, limit := s.sent.Add(1), s.max.Load()
	return limit == 0 || n <= limit, limit != 0 && n >= limit
}
