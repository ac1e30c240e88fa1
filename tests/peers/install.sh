#!/bin/sh
# Installs what the tests in this directory run against, from Debian, and leaves no service of it running.
set -eu

missing=""
for program in prometheus promtool; do
  command -v "$program" >/dev/null || missing="prometheus"
done
# Debian puts it where only root's search path looks.
PATH="$PATH:/usr/sbin:/sbin" command -v pgbouncer >/dev/null || missing="$missing pgbouncer"

echo "The tests in tests/peers need from Debian: prometheus (with promtool), pgbouncer. From npm: nothing."
if [ -z "$missing" ]; then
  echo "Already installed: $(prometheus --version 2>&1 | head -n 1)"
  echo "Already installed: $(PATH="$PATH:/usr/sbin:/sbin" pgbouncer --version 2>&1 | head -n 1)"
  exit 0
fi

if [ "$(id -u)" = 0 ]; then
  as_root=""
elif sudo -n true 2>/dev/null; then
  as_root="sudo -n"
else
  as_root="none"
fi
if [ "$as_root" = none ] || ! command -v apt-get >/dev/null; then
  echo "Missing: $missing. Install it and run this again:" >&2
  echo "  Debian, Ubuntu: sudo apt-get install --no-install-recommends $missing" >&2
  echo "  macOS:          brew install $missing" >&2
  exit 1
fi

echo "Installing from Debian: $missing"
$as_root apt-get update -q
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing

# Each package starts a service. The tests start their own, and nobody asked for those to stay.
for service in $missing; do
  if [ -d /run/systemd/system ]; then
    $as_root systemctl disable --now "$service"
  elif [ -x "/etc/init.d/$service" ]; then
    $as_root "/etc/init.d/$service" stop
  fi
done
