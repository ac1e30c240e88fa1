#!/bin/sh
# Installs what the tests in this directory run against, from Debian, and leaves no service of it running.
set -eu

missing=""
for program in prometheus promtool; do
  command -v "$program" >/dev/null || missing="prometheus"
done

echo "The tests in tests/peers need from Debian: prometheus (with promtool). From npm: nothing."
if [ -z "$missing" ]; then
  echo "Already installed: $(prometheus --version 2>&1 | head -n 1)"
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

# The package starts a service. The tests start their own, and nobody asked for one to stay.
if [ -d /run/systemd/system ]; then
  $as_root systemctl disable --now prometheus
elif [ -x /etc/init.d/prometheus ]; then
  $as_root /etc/init.d/prometheus stop
fi
