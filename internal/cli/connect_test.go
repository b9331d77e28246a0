package cli

import (
	"context"
	"encoding/base64"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// An nkey, wherever its seed is kept, becomes its public key and signatures that verify.
func TestNKeyIdentity(t *testing.T) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := pair.Seed()
	public, _ := pair.PublicKey()
	s := Settings{NKey: "data:;base64," + base64.StdEncoding.EncodeToString(seed)}
	opts, err := s.natsOptions(context.Background(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var got nats.Options
	for _, o := range opts {
		if err := o(&got); err != nil {
			t.Fatal(err)
		}
	}
	if got.Nkey != public {
		t.Errorf("public key %q, want %q", got.Nkey, public)
	}
	nonce := []byte("nonce")
	signature, err := got.SignatureCB(nonce)
	if err != nil || pair.Verify(nonce, signature) != nil {
		t.Errorf("signature does not verify: %v", err)
	}
}

// Settings that cannot be used are refused, not left out.
func TestUnusableSettings(t *testing.T) {
	for name, s := range map[string]Settings{
		"Windows certificate store": {WindowsCertStore: "user"},
		"certificate in a variable": {CA: "env://CA"},
		"missing credentials":       {Creds: "/no/such.creds"},
		"missing nkey":              {NKey: "/no/such.nk"},
		"proxy of another kind":     {SocksProxy: "ftp://x"},
	} {
		if _, err := s.natsOptions(context.Background(), time.Second); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A dial ends with its context, not after the time-out.
func TestDialEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d, err := newDialer(ctx, "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := d.Dial("tcp", "127.0.0.1:1"); err == nil {
		conn.Close()
		t.Error("dialled though the context was over")
	}
}
