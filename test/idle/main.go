// Command idle measures many buckets at rest: three servers, that many buckets with three replicas and one
// key each, and nobody who uses them. It prints how long the buckets took to create, what each server costs
// idle, and, after all three were killed at once, how long it took until each bucket answered a get.
//
//	go run ./test/idle -buckets 1000
//	CLEAT_COMPAT_SERVER=nats-server go run ./test/idle -buckets 200      # the reference
//
// Figures of CPU are of -for, after -settle.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/test/process"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var (
	buckets = flag.Int("buckets", 1000, "how many buckets")
	clients = flag.Int("clients", 1, "how many of them are created at a time")
	settle  = flag.Duration("settle", 20*time.Second, "how long the servers are left alone before they are measured")
	during  = flag.Duration("for", 30*time.Second, "how long they are measured")
	dir     = flag.String("dir", "", "where the servers keep their files; empty: below the directory for temporary files")
	config  = flag.String("config", "", "what to add to the configuration of each server")
)

const servers = 3

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "idle:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	below, err := os.MkdirTemp(*dir, "idle")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(below)) }()
	command, err := process.Command()
	if err != nil {
		return err
	}
	all, err := process.OpenCluster(below, servers, *config)
	defer func() {
		for _, s := range all {
			_ = s.Close() // Killed: what it says then is of no use.
		}
	}()
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d buckets with %d replicas\n", command[0], *buckets, servers)
	creation, err := create(all)
	if err != nil {
		return err
	}
	fmt.Printf("created, with a key each: %.1f s\n", creation.Seconds())
	rest(all)
	for _, s := range all {
		s.Kill()
	}
	began := time.Now()
	for _, s := range all {
		if err := s.Launch(); err != nil {
			return err
		}
	}
	first, err := answers(all, began)
	if err != nil {
		return err
	}
	took, used := time.Since(began), time.Duration(0)
	for _, s := range all {
		used += process.CPU(s.Pid())
	}
	fmt.Printf("all killed and started: first get after %.1f s, a get of each bucket after %.1f s, with %.1f s of CPU\n",
		first.Seconds(), took.Seconds(), used.Seconds())
	rest(all)
	return nil
}

// rest waits, and prints what the servers cost meanwhile.
func rest(all []*process.Server) {
	time.Sleep(*settle)
	var before [servers]time.Duration
	for i, s := range all {
		before[i] = process.CPU(s.Pid())
	}
	time.Sleep(*during)
	var cpu, memory [servers]float64
	var sumCPU, sumMemory float64
	for i, s := range all {
		cpu[i] = 100 * (process.CPU(s.Pid()) - before[i]).Seconds() / during.Seconds()
		now, _ := process.RSS(s.Pid())
		memory[i] = float64(now) / (1 << 20)
		sumCPU, sumMemory = sumCPU+cpu[i], sumMemory+memory[i]
	}
	fmt.Printf("at rest: %.1f %% of a core (%.1f), %.0f MiB (%.0f)\n", sumCPU, cpu, sumMemory, memory)
}

func bucket(i int) string { return fmt.Sprintf("b%04d", i) }

// each does something with every bucket, so many at a time, over connections to all servers in turn.
func each(all []*process.Server, workers int, do func(nc *nats.Conn, i int) error) error {
	var (
		next  atomic.Int64
		wg    sync.WaitGroup
		first = make(chan error, workers)
	)
	for w := range workers {
		nc, err := connect(all[w%len(all)])
		if err != nil {
			return err
		}
		defer nc.Close()
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < *buckets; i = int(next.Add(1)) - 1 {
				if err := do(nc, i); err != nil {
					first <- fmt.Errorf("bucket %s: %w", bucket(i), err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(first)
	return <-first
}

// connect waits for the server to listen.
func connect(s *process.Server) (nc *nats.Conn, err error) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if nc, err = nats.Connect(s.URL()); err == nil {
			return nc, nil
		}
	}
	return nil, err
}

func create(all []*process.Server) (time.Duration, error) {
	began := time.Now()
	err := each(all, *clients, func(nc *nats.Conn, i int) error {
		js, err := jetstream.New(nc)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		kv, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: bucket(i), Replicas: servers})
		if err != nil {
			return err
		}
		_, err = kv.Put(ctx, "k", []byte(bucket(i)))
		return err
	})
	return time.Since(began), err
}

// answers waits until a get of every bucket is answered, and tells when the first one was.
func answers(all []*process.Server, began time.Time) (first time.Duration, err error) {
	var got atomic.Int64
	err = each(all, 4*servers, func(nc *nats.Conn, i int) error {
		subject := fmt.Sprintf("$JS.API.DIRECT.GET.KV_%s.$KV.%[1]s.k", bucket(i))
		var last error
		for time.Since(began) < 5*time.Minute {
			m, err := nc.Request(subject, nil, time.Second)
			switch {
			case err != nil:
				last = err
				time.Sleep(5 * time.Millisecond)
			case string(m.Data) != bucket(i):
				last = fmt.Errorf("answered %q %s", m.Data, strings.TrimSpace(m.Header.Get("Status")))
				time.Sleep(5 * time.Millisecond)
			default:
				got.CompareAndSwap(0, int64(time.Since(began)))
				return nil
			}
		}
		return last
	})
	return time.Duration(got.Load()), err
}
