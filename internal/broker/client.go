package broker

import (
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cleatkv/cleat/internal/auth"
	"github.com/cleatkv/cleat/internal/subject"
	"github.com/cleatkv/cleat/internal/wire"
)

// What Subscribe may refuse with; the texts are those of the protocol.
var (
	ErrInvalidSubject = errors.New("Invalid Subject")
	ErrTooManySubs    = errors.New("maximum subscriptions exceeded")
)

// Identity is who a client is, once it has authenticated.
type Identity struct {
	User        string // As monitoring shows it; empty without authentication.
	Permissions *auth.Permissions
	SubsMax     int // 0: no bound.
}

// Traits are what a client said of itself in CONNECT.
type Traits struct {
	Name, Lang, Version string
	Echo                bool
	Headers             bool
	NoResponders        bool
}

// Client is a client connection as the broker knows it: its account, its subscriptions, its
// permissions and its output.
type Client struct {
	id    uint64
	conn  Conn
	state atomic.Pointer[state] // Replaced as a whole by Bind.
	out   outbox
	late  atomic.Pointer[func(*Msg, bool)] // What comes after Leave, if anybody wants it.

	mu   sync.Mutex // Guards subs and account binding.
	subs map[string]*Sub
	gone bool

	replies replies
}

type state struct {
	account  *Account
	identity Identity
	traits   Traits
}

// NewClient makes a client that is not bound to an account yet. pendingMax bounds the bytes that
// may wait for its socket.
func (b *Broker) NewClient(id uint64, conn Conn, pendingMax int) *Client {
	c := &Client{id: id, conn: conn}
	c.out.limit = pendingMax
	c.state.Store(&state{})
	return c
}

// ID is the number of the connection, unique on this server.
func (c *Client) ID() uint64 { return c.id }

// Account is what the client is bound to, nil before that.
func (c *Client) Account() *Account { return c.state.Load().account }

// User is the authorized user's name, empty without authentication.
func (c *Client) User() string { return c.state.Load().identity.User }

// Identity is who the client is.
func (c *Client) Identity() Identity { return c.state.Load().identity }

// Traits are what the client said of itself.
func (c *Client) Traits() Traits { return c.state.Load().traits }

// Permissions are the client's compiled permissions; nil allows all.
func (c *Client) Permissions() *auth.Permissions { return c.state.Load().identity.Permissions }

// Bind puts the client into an account with the given rights. Binding again replaces the rights;
// subscriptions that are no longer allowed, or lie in another account, end. Those that ended are
// returned.
func (c *Client) Bind(a *Account, id Identity, t Traits) (ended []*Sub) {
	c.mu.Lock()
	if c.gone {
		c.mu.Unlock()
		return nil
	}
	old := c.state.Swap(&state{account: a, identity: id, traits: t})
	if old.account != a {
		if old.account != nil {
			old.account.clients.Add(-1)
		}
		a.clients.Add(1)
	}
	for _, s := range c.subs {
		if s.account != a || !id.Permissions.CanSubscribe(s.subject, s.queue) {
			ended = append(ended, s)
		}
	}
	c.mu.Unlock()
	for _, s := range ended {
		s.Close()
	}
	return ended
}

// Close ends all subscriptions. The output is not touched: see Finish and Kill.
func (c *Client) Close() {
	c.mu.Lock()
	if c.gone {
		c.mu.Unlock()
		return
	}
	c.gone = true
	subs := c.subs
	c.subs = nil
	if a := c.Account(); a != nil {
		a.clients.Add(-1)
	}
	c.mu.Unlock()
	for _, s := range subs {
		s.Close()
	}
}

// Subscribe makes a subscription known to the client as sid. A sid in use is left as it is.
func (c *Client) Subscribe(subj, queue, sid string) error {
	st := c.state.Load()
	if !subject.Valid(subj) {
		return ErrInvalidSubject
	}
	if !st.identity.Permissions.CanSubscribe(subj, queue) {
		return DeniedSubscription(subj, queue)
	}
	s := &Sub{account: st.account, subject: subj, queue: queue, client: c, sid: sid}
	s.filtered = st.identity.Permissions.Filtered(subj)
	c.mu.Lock()
	if c.gone || c.subs[sid] != nil {
		c.mu.Unlock()
		return nil
	}
	if limit := st.identity.SubsMax; limit > 0 && len(c.subs) >= limit {
		c.mu.Unlock()
		return ErrTooManySubs
	}
	if c.subs == nil {
		c.subs = make(map[string]*Sub)
	}
	c.subs[sid] = s
	c.mu.Unlock()
	st.account.insert(s)
	if s.closed.Load() { // Closed between the two steps: the removal may have come too early.
		st.account.remove(s)
	}
	return nil
}

// DeniedSubscription is the error of a subscription that permissions do not allow.
func DeniedSubscription(subj, queue string) error {
	text := `Permissions Violation for Subscription to "` + subj + `"`
	if queue != "" {
		text += ` using queue "` + queue + `"`
	}
	return errors.New(text)
}

// Unsubscribe ends the subscription now, or, with max > 0, once it got max messages in total.
func (c *Client) Unsubscribe(sid string, limit int64) {
	c.mu.Lock()
	s := c.subs[sid]
	c.mu.Unlock()
	if s == nil {
		return
	}
	if limit > 0 {
		s.max.Store(limit)
		if s.sent.Load() < limit {
			return
		}
	}
	s.Close()
}

func (c *Client) forget(s *Sub) {
	c.mu.Lock()
	if c.subs[s.sid] == s {
		delete(c.subs, s.sid)
	}
	c.mu.Unlock()
}

// Subscriptions lists what the client is subscribed to.
func (c *Client) Subscriptions() []*Sub {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*Sub, 0, len(c.subs))
	for _, s := range c.subs {
		list = append(list, s)
	}
	return list
}

// NumSubscriptions is how many subscriptions the client has.
func (c *Client) NumSubscriptions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.subs)
}

// Output tells the messages and payload bytes sent to the client so far, and the bytes that wait.
func (c *Client) Output() (msgs, bytes int64, pending int) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.msgs, c.out.sent, c.out.bytes
}

// Publish routes a message of the client. All slices may lie in its read buffer. What the client
// may not publish is answered with an error line and dropped; the result tells whether it passed.
func (c *Client) Publish(out *Batch, subj, reply, hdr, data []byte) bool {
	st := c.state.Load()
	m := Msg{Subject: view(subj), Reply: view(reply), Header: hdr, Data: data}
	if p := st.identity.Permissions; p != nil && !p.CanPublish(m.Subject) && !c.replies.allow(m.Subject) {
		c.SendErr(out, `Permissions Violation for Publish to "`+m.Subject+`"`)
		return false
	}
	if out.route(st.account, c, m.Subject, "", m, true) == 0 && len(reply) > 0 && st.traits.NoResponders {
		c.noResponders(out, st.account, m.Subject, m.Reply)
	}
	return true
}

// view is b as a string, without a copy. It is good as long as b is left alone.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// SendErr adds an error line.
func (c *Client) SendErr(out *Batch, text string) {
	c.Send(out, string(wire.AppendErr(nil, text)))
}

// noResponders tells the client, and it alone, that nobody took its request.
func (c *Client) noResponders(out *Batch, a *Account, subj, reply string) {
	f := out.push()
	defer out.pop(f)
	a.subs.Match(reply, &f.found)
	f.msg = Msg{Subject: reply, Header: wire.NoResponders(subj)}
	d := delivery{batch: out, msg: &f.msg}
	for _, list := range f.found.Plain {
		for _, s := range list {
			if s.client == c {
				c.deliver(&d, s)
				return
			}
		}
	}
}

// deliver adds a message to the output and tells whether the client took it.
func (c *Client) deliver(d *delivery, s *Sub) bool {
	st := c.state.Load()
	m := d.msg
	if c == d.from && !st.traits.Echo {
		return false
	}
	if s.filtered && st.identity.Permissions.Denies(m.Subject) {
		return false
	}
	ok, last := s.admit()
	if !ok {
		return false
	}
	hdr := m.Header
	if !st.traits.Headers {
		hdr = nil
	}
	if r := st.identity.Permissions.Responses(); r != nil && m.Reply != "" {
		c.replies.note(m.Reply, r)
	}
	k := c.out.begin(wire.MsgSizeMax(m.Subject, s.sid, m.Reply, hdr, m.Data))
	if k == nil {
		if late := c.late.Load(); late != nil {
			(*late)(m, d.goesFar())
			return true
		}
		return false
	}
	before := len(k.b)
	k.b = wire.AppendMsg(k.b, m.Subject, s.sid, m.Reply, hdr, m.Data)
	c.out.msgs++
	c.out.sent += int64(len(hdr) + len(m.Data))
	c.added(len(k.b)-before, d.batch)
	if last {
		s.Close()
	}
	return true
}
