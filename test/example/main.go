// Command example is the README's program with nats.go: it opens the bucket my_kv_store, puts what
// its arguments say, if any, and prints what is there.
//
//	example -url nats://127.0.0.1:4222 greeting ["hello world"]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func main() {
	url := flag.String("url", nats.DefaultURL, "server")
	flag.Parse()
	if err := run(*url, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "example:", err)
		os.Exit(1)
	}
}

func run(url string, args []string) error {
	if len(args) < 1 || len(args) > 2 {
		return fmt.Errorf("want a key and maybe a value, got %q", args)
	}
	nc, err := nats.Connect(url)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	kv, err := js.KeyValue(ctx, "my_kv_store")
	if err != nil {
		return err
	}
	if len(args) == 2 {
		if _, err := kv.PutString(ctx, args[0], args[1]); err != nil {
			return err
		}
	}
	entry, err := kv.Get(ctx, args[0])
	if err != nil {
		return err
	}
	fmt.Println(string(entry.Value()))
	return nil
}
