// Command putload puts values with many clients at once, each waiting for its acknowledgement, and
// prints how many were acknowledged.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func main() {
	url := flag.String("url", nats.DefaultURL, "server")
	clients := flag.Int("clients", 1, "connections that put at once, one value at a time each")
	puts := flag.Int("puts", 1000, "puts in all")
	flag.Parse()
	if err := run(*url, *clients, *puts); err != nil {
		fmt.Fprintln(os.Stderr, "putload:", err)
		os.Exit(1)
	}
}

func run(url string, clients, puts int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var (
		all   sync.WaitGroup
		begun atomic.Int64 // puts, of all clients
		first = make(chan error, clients)
		value = make([]byte, 128)
	)
	stores := make([]jetstream.KeyValue, clients)
	for n := range stores {
		nc, err := nats.Connect(url)
		if err != nil {
			return err
		}
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			return err
		}
		if stores[n], err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "putload"}); err != nil {
			return err
		}
	}
	began := time.Now()
	for n, kv := range stores {
		all.Go(func() {
			for begun.Add(1) <= int64(puts) {
				if _, err := kv.Put(ctx, fmt.Sprintf("key.%d", n), value); err != nil {
					first <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-first:
		return err
	default:
	}
	took := time.Since(began)
	fmt.Printf("%d puts acknowledged to %d clients in %s: %.0f per second\n",
		puts, clients, took.Round(time.Millisecond), float64(puts)/took.Seconds())
	return nil
}
