#!/bin/sh
# Installs what the tests in this directory run against, and leaves no service of it running. May be run again.
#
#   From Debian:  prometheus (with promtool), prometheus-alertmanager (with amtool), pgbouncer, chromium, and node with
#                 npm unless there is one already
#   From npm:     the SDKs, the build tool and the browser's driver of package.json, into node_modules here;
#                 an Unleash server (190 MB) into unleash/node_modules, away from what the SDKs' page is built of
#   From PyPI:    the SDKs of requirements.lock, into .peers/python at the top of the checkout
#
# The tools that build it all want Node 20; where Debian has only an older one, a newer is taken from npm.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
python="$top/.venv/bin/python"
[ -x "$python" ] || python=python3
# Debian puts some where only root's search path looks.
PATH="$here/node_modules/.bin:$PATH:/usr/sbin:/sbin"

missing=""
lacks() { command -v "$1" >/dev/null || missing="$missing $2"; }
lacks prometheus prometheus
# Only Debian calls it that.
command -v alertmanager >/dev/null || lacks prometheus-alertmanager prometheus-alertmanager
lacks pgbouncer pgbouncer
lacks chromium chromium
lacks node nodejs
lacks npm npm
command -v promtool >/dev/null || case "$missing " in *" prometheus "*) ;; *) missing="$missing prometheus" ;; esac

if [ -n "$missing" ]; then
  if [ "$(id -u)" = 0 ]; then
    as_root=""
  elif sudo -n true 2>/dev/null; then
    as_root="sudo -n"
  else
    as_root="none"
  fi
  if [ "$as_root" = none ] || ! command -v apt-get >/dev/null; then
    echo "Missing:$missing. Install it and run this again:" >&2
    echo "  Debian, Ubuntu: sudo apt-get install --no-install-recommends$missing" >&2
    echo "  macOS:          brew install$missing" >&2
    exit 1
  fi
  echo "Installing from Debian:$missing"
  $as_root apt-get update -q
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing

  # Some packages start a service. The tests start their own, and nobody asked for those to stay.
  for service in prometheus prometheus-alertmanager pgbouncer; do
    case "$missing " in *" $service "*) ;; *) continue ;; esac
    if [ -d /run/systemd/system ]; then
      $as_root systemctl disable --now "$service"
    elif [ -x "/etc/init.d/$service" ]; then
      $as_root "/etc/init.d/$service" stop
    fi
  done
fi

echo "Installing from npm into $here/node_modules, and from PyPI into $top/.peers/python"
cd "$here"
if ! cmp -s package-lock.json node_modules/installed.json; then
  npm ci --no-audit --no-fund
  cp package-lock.json node_modules/installed.json
fi
if ! cmp -s unleash/package-lock.json unleash/node_modules/installed.json; then
  (cd unleash && npm ci --no-audit --no-fund)
  cp unleash/package-lock.json unleash/node_modules/installed.json
fi
if [ "$(node -p 'parseInt(process.versions.node)')" -lt 20 ]; then
  npm install --no-save --no-package-lock --no-audit --no-fund --ignore-scripts=false node@22
fi
if ! cmp -s requirements.lock "$top/.peers/python/installed.lock"; then
  "$python" -m venv --clear "$top/.peers/python"
  "$top/.peers/python/bin/python" -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements.lock
  cp requirements.lock "$top/.peers/python/installed.lock"
fi

prometheus --version 2>&1 | head -n 1
{ prometheus-alertmanager --version || alertmanager --version; } 2>&1 | grep -m 1 version
pgbouncer --version | head -n 1
chromium --version 2>/dev/null
echo "Node $(node --version)"
node -p '"Unleash " + require("./unleash/node_modules/unleash-server/package.json").version'
"$top/.peers/python/bin/python" -m pip --disable-pip-version-check list --format freeze | grep -i openfeature
