#!/usr/bin/env bash
# Installs what the tests need besides Go. What a machine cannot install is named here, and its
# tests are skipped with the same words; in CI a skip is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v npm >/dev/null; then
  echo "deps: npm is missing: the JavaScript clients will be skipped; install Node.js 20 or later"
elif ! cmp -s compat/js/package-lock.json compat/js/node_modules/.cleat-lock; then
  # The stamp holds the lock file that was installed: nothing to do while it is the same.
  (cd compat/js && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
  cp compat/js/package-lock.json compat/js/node_modules/.cleat-lock
fi

if [ -e /usr/include/nats/nats.h ]; then
  :
elif [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends libnats-dev gcc libc6-dev >/dev/null
else
  echo "deps: the NATS library for C is missing: its tests will be skipped; on Debian: apt-get install libnats-dev"
fi
