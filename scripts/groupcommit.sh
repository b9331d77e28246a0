#!/usr/bin/env bash
# Counts the syncs per acknowledged put, seen from outside: strace runs the server and counts its
# fsync and fdatasync calls while clients put. Usage: groupcommit.sh SERVER [ARGUMENT...]
#
# It fails unless 64 clients share their syncs (below 0.1 per put) and one client gets one for each
# of its puts. The few syncs of starting and of creating the bucket are counted in.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v strace >/dev/null || { echo "groupcommit: strace is missing" >&2; exit 1; }

work=$(mktemp -d)
tracer=
# The tracer forwards nothing: the server has to be ended first, and then it ends by itself.
finish() { if [ -n "$tracer" ]; then pkill -TERM -P "$tracer" || true; wait "$tracer" || true; tracer=; fi; }
trap 'finish; rm -rf "$work"' EXIT
go build -o "$work/putload" ./test/putload

measure() { # clients, puts, lowest and highest syncs per put
  local clients=$1 puts=$2 low=$3 high=$4 port=$((20000 + RANDOM % 10000)) dir="$work/$1"
  mkdir "$dir"
  printf 'host: 127.0.0.1\nport: %s\njetstream { store_dir: "%s/data" }\n' "$port" "$dir" >"$dir/server.conf"
  strace -f --seccomp-bpf -c -e trace=fsync,fdatasync -o "$dir/strace" "${server[@]}" -c "$dir/server.conf" >"$dir/log" 2>&1 &
  tracer=$!
  for _ in $(seq 100); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    sleep 0.1
  done
  "$work/putload" -url "nats://127.0.0.1:$port" -clients "$clients" -puts "$puts"
  finish
  awk -v puts="$puts" -v low="$low" -v high="$high" '
    $NF == "fsync" || $NF == "fdatasync" { syncs += $4 }
    END { printf "%d syncs: %.3f per put\n", syncs, syncs / puts; exit !(syncs / puts >= low && syncs / puts <= high) }
  ' "$dir/strace"
}

server=("$@")
measure 64 40000 0 0.1
measure 1 2000 1 1.1
