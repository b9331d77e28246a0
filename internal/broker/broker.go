// Package broker routes messages to subscriptions.
//
// It owns the accounts, the subscriptions in them (of client connections and of code inside the
// server, called internal), fan-out, queue groups, delivery limits, the permission checks of a
// client, and the bytes that wait for each client's socket. It promises that messages of one
// publisher reach each subscription in order, that a publisher is never blocked by a socket, and
// that what a client may hold back is bounded. It knows nothing of streams, and of sockets only
// what the Conn interface says.
//
// Concurrency: every method of Broker, Account, Client and Sub may be called from any goroutine.
// A Batch belongs to one goroutine. Locks are leaves: none is held while a callback runs.
package broker

import (
	"sync"
	"sync/atomic"
)

// Names of the two accounts that always exist.
const (
	GlobalAccount = "$G"
	SystemAccount = "$SYS"
)

// Broker is the set of accounts of a server.
type Broker struct {
	mu       sync.Mutex                          // Serializes the making of accounts.
	accounts atomic.Pointer[map[string]*Account] // Replaced as a whole, under mu.
	watchers []func(*Account)                    // Under mu.
	system   atomic.Pointer[Account]

	sharing struct {
		sync.Mutex // Held for the whole of Share.
		services   []*Sub
	}
}

// New makes a broker that has the default account and the system account.
func New() *Broker {
	b := &Broker{}
	b.accounts.Store(&map[string]*Account{})
	b.Account(GlobalAccount)
	b.SetSystem(SystemAccount)
	return b
}

// Account returns the named account, which is made if it does not exist yet.
func (b *Broker) Account(name string) *Account {
	if a := b.Lookup(name); a != nil {
		return a
	}
	b.mu.Lock()
	if a := b.Lookup(name); a != nil {
		b.mu.Unlock()
		return a
	}
	a := newAccount(b, name)
	next := make(map[string]*Account)
	for k, v := range *b.accounts.Load() {
		next[k] = v
	}
	next[name] = a
	b.accounts.Store(&next)
	watchers := b.watchers
	b.mu.Unlock()
	for _, fn := range watchers {
		fn(a)
	}
	return a
}

// Lookup returns the named account, or nil if there is none.
func (b *Broker) Lookup(name string) *Account { return (*b.accounts.Load())[name] }

// Accounts lists all accounts, in no order.
func (b *Broker) Accounts() []*Account {
	all := *b.accounts.Load()
	list := make([]*Account, 0, len(all))
	for _, a := range all {
		list = append(list, a)
	}
	return list
}

// WatchAccounts calls fn once with every account that exists and every one made later.
func (b *Broker) WatchAccounts(fn func(*Account)) {
	b.mu.Lock()
	b.watchers = append(b.watchers[:len(b.watchers):len(b.watchers)], fn)
	existing := b.Accounts()
	b.mu.Unlock()
	for _, a := range existing {
		fn(a)
	}
}

// SetSystem makes the named account the system account.
func (b *Broker) SetSystem(name string) { b.system.Store(b.Account(name)) }

// System is the system account.
func (b *Broker) System() *Account { return b.system.Load() }
