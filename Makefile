# The commands of this project; CI runs the same. "make help" lists them.

SHELL       := bash
CYCLES      ?= 100
CUTS        ?= 200
FUZZTIME    ?= 30s
KEYS        ?= 1000000
MIB         ?= 300
BUCKETS     ?= 1000
COMPAT_WITH ?= bin/cleat server
SERVERS     ?= 1
GOLANGCI    := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

CHAOS       := CLEAT_COMPAT_SERVER="bin/cleat server" go test -v -count=1 -timeout 120m ./test/chaos

.DEFAULT_GOAL := build
.PHONY: help build run deps test race invariants fuzz bench lint compat chaos faults powercut syncfail fullvolume stall groupcommit tables writes idle example \
        cluster-kill cluster-pause cluster-part cluster-links cluster-damage cluster-blind cluster-garbage cluster-rest cluster-state cluster-outsiders cluster-scale \
        cluster-rebirth cluster-workers linearizable linearizable-mix

help: ## List the commands.
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 14

build: ## Build the one binary, bin/cleat.
	CGO_ENABLED=0 go build -trimpath -o bin/cleat ./cmd/cleat

run: build ## Build and start a server: embedded storage, no configuration.
	bin/cleat server

deps: ## Install what the tests need: JavaScript packages, and as root on Debian in CI the C client.
	scripts/deps.sh

test: build deps ## Everything: vet, all Go tests with assertions on, and the Go, JavaScript and C clients.
	go vet -tags invariants,faults ./...
	CLEAT_COMPAT_SERVER="bin/cleat server" go run ./test/run -tags invariants -timeout 20m ./...

race: ## All Go tests under the race detector.
	go run ./test/run -race -timeout 40m ./...

invariants: ## The tests of the server's own packages with all assertions on.
	go run ./test/run -tags invariants ./internal/... ./sim/...

fuzz: ## Each fuzz test for FUZZTIME.
	scripts/fuzz.sh $(FUZZTIME)

bench: ## The Go benchmarks.
	go test -run '^$$' -bench . -benchmem ./...

lint: ## Formatting and static analysis.
	go run $(GOLANGCI) run

compat: build deps ## The official clients alone, with SERVERS servers; COMPAT_WITH=nats-server holds the suites against the reference.
	CLEAT_COMPAT_SERVERS=$(SERVERS) CLEAT_COMPAT_SERVER="$(COMPAT_WITH)" go run ./test/run -count=1 ./compat

chaos: build ## Kill a single server under load, CYCLES times.
	CLEAT_COMPAT_SERVER="bin/cleat server" go test -v -count=1 -timeout 60m ./test/chaos -run TestChaosKill -cycles $(CYCLES)

faults: ## Every call to the file system of a whole server: it fails, and it is the last before a power cut.
	go run ./test/run -timeout 60m ./sim/faults -step 1

powercut: build ## As root: cut the power of a real server's file system under load, CUTS times.
	CLEAT_COMPAT_SERVER="bin/cleat server" go test -tags faults -v -count=1 -timeout 60m ./test/chaos -run TestPowerCut -cuts $(CUTS)

syncfail: build ## As root, with strace: let a sync of a real server fail, and cut its power.
	CLEAT_COMPAT_SERVER="bin/cleat server" go test -tags faults -v -count=1 -timeout 10m ./test/chaos -run TestSyncFailure

fullvolume: build ## As root: fill a volume of 32 MiB again and again, also by somebody else.
	CLEAT_COMPAT_SERVER="bin/cleat server" go test -tags faults -v -count=1 -timeout 30m ./test/chaos -run TestFullVolume -fillings 10

cluster-kill: build ## Kill the leader of three servers under load, CYCLES times.
	$(CHAOS) -run TestChaosClusterKill -kills $(CYCLES)

cluster-pause: build ## Stop the leader of three servers for ten seconds, CYCLES/2 times.
	$(CHAOS) -run TestChaosClusterPause -kills $(CYCLES) -pause 10s

cluster-part: build ## Part three servers in every way, CYCLES times.
	$(CHAOS) -run 'TestChaosPartition|TestIsolatedServersOneOutcome' -kills $(CYCLES)

cluster-links: build ## Make links between three servers slow, narrow, lossy, or dead in one direction, CYCLES times.
	$(CHAOS) -run TestChaosLinks -kills $(CYCLES)

cluster-damage: build ## Damage the files of one of three servers under load, CYCLES times.
	$(CHAOS) -run TestChaosDamage -kills $(CYCLES)

cluster-blind: build ## Spoil the states that two of three servers have, and not the logs, under load, CYCLES times.
	$(CHAOS) -run TestChaosTwoStatesLost -kills $(CYCLES)

cluster-garbage: build ## Make garbage of the ends of logs, so that a bucket has no majority left, CYCLES times.
	$(CHAOS) -run 'TestChaosGarbageTail' -kills $(CYCLES)

cluster-rest: build ## Take servers from three whose buckets nobody uses, CYCLES times.
	$(CHAOS) -run TestChaosRest -kills $(CYCLES)

cluster-state: build ## Send a server that was away for long a state of MIB MiB, and break the connections on the way.
	$(CHAOS) -run TestChaosSnapshotResume -mib $(MIB)

cluster-outsiders: build ## Five servers, each without a replica of some buckets, under CYCLES faults: who goes on, and how soon.
	$(CHAOS) -run TestChaosOutsiders -kills $(CYCLES)

cluster-scale: build ## Change the number of replicas of a bucket under load, CYCLES times, and kill a server on the way.
	$(CHAOS) -run TestChaosScale -kills $(CYCLES)

cluster-rebirth: build ## Delete and create a bucket again while servers are away, CYCLES times.
	$(CHAOS) -run TestChaosRebirth -kills $(CYCLES)

cluster-workers: build ## Share a durable consumer among workers under CYCLES faults.
	$(CHAOS) -run TestChaosWorkers -kills $(CYCLES)

linearizable: build ## Check what clients of three servers see under CYCLES faults, over 100,000 operations.
	$(CHAOS) -run 'TestLinearizableWith|TestStaleReads' -kills $(CYCLES) -ops 100000

linearizable-mix: build ## Check all that clients of five servers can do, on each engine, under CYCLES faults of up to all servers.
	$(CHAOS) -run TestLinearizableMix -kills $(CYCLES)

stall: build ## As root, with strace: disks of three servers are slow, or stand still, CYCLES times.
	CLEAT_COMPAT_SERVER="bin/cleat server" go test -tags faults -v -count=1 -timeout 120m ./test/chaos -run TestChaosStall -kills $(CYCLES)

groupcommit: build ## Count fdatasync calls per acknowledged put, with strace.
	scripts/groupcommit.sh bin/cleat server

tables: build ## A bucket with KEYS keys on each engine, and on nats-server: times, memory, disk.
	CLEAT_COMPAT_SERVER="bin/cleat server" go run ./test/tables -keys $(KEYS)

writes: build ## What a put costs the disk on each engine, and on nats-server, with strace.
	CLEAT_COMPAT_SERVER="bin/cleat server" go run ./test/tables -what writes -keys 200000 -systems file,rocksdb,memory,nats,nats-always

idle: build ## BUCKETS buckets at rest on three servers: creation, CPU, memory, restart; 200 of them beside nats-server.
	CLEAT_COMPAT_SERVER="bin/cleat server" go run ./test/idle -buckets $(BUCKETS)
	CLEAT_COMPAT_SERVER="bin/cleat server" go run ./test/idle -buckets 200
	CLEAT_COMPAT_SERVER="nats-server" go run ./test/idle -buckets 200

pauses: build ## As root: how long puts and gets wait while the storage compacts, saves indexes, purges 100,000 keys, deletes buckets.
	CLEAT_COMPAT_SERVER="bin/cleat server" go run ./test/tables -what pauses -keys 1200000 -systems file,rocksdb -realtime

example: build deps ## The first bucket, with the tool, nats.go and JavaScript, before and after kill -9.
	scripts/example.sh
