#!/usr/bin/env bash
# Runs each fuzz test of the module for the time given, one after the other.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s}

for package in $(go list ./internal/...); do
  for fuzz in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
    echo "fuzz: $package $fuzz $time"
    go test -run '^$' -fuzz "^$fuzz\$" -fuzztime "$time" "$package"
  done
done
