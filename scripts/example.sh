#!/usr/bin/env bash
# The first minutes of a user, as a check: a bucket, a put and a get with the tool, with nats.go and
# with JavaScript; and all values again after kill -9 and a restart. CLEAT is the binary to use.
set -euo pipefail
cd "$(dirname "$0")/.."
cleat=$(realpath "${CLEAT:-bin/cleat}")
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null; rm -rf "$work"' EXIT
port=$((20000 + RANDOM % 10000))
export NATS_URL="nats://127.0.0.1:$port"
go build -o "$work/example" ./test/example

start() {
  "$cleat" server -p "$port" -sd "$work/data" >>"$work/log" 2>&1 &
  server=$!
  for _ in $(seq 100); do
    if "$cleat" kv ls >/dev/null 2>&1; then return; fi
    kill -0 "$server" || break
    sleep 0.1
  done
  echo "example: the server does not start:" >&2
  cat "$work/log" >&2
  return 1
}

expect() { # wanted command...
  local want=$1 got
  shift
  got=$("$@")
  if [ "$got" != "$want" ]; then
    echo "example: $*: got '$got', want '$want'" >&2
    exit 1
  fi
  echo "$* -> $got"
}

start
"$cleat" kv add my_kv_store >/dev/null
expect "hello world" "$cleat" kv put my_kv_store greeting "hello world"
expect "hello world" "$cleat" kv get my_kv_store greeting --raw
expect "hello from Go" "$work/example" -url "$NATS_URL" go "hello from Go"
expect "hello from JavaScript" node compat/js/example.js "$NATS_URL" js "hello from JavaScript"

kill -9 "$server"
wait "$server" || true
start
for key in greeting:"hello world" go:"hello from Go" js:"hello from JavaScript"; do
  expect "${key#*:}" "$cleat" kv get my_kv_store "${key%%:*}" --raw
  expect "${key#*:}" "$work/example" -url "$NATS_URL" "${key%%:*}"
  expect "${key#*:}" node compat/js/example.js "$NATS_URL" "${key%%:*}"
done
