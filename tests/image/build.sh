#!/bin/sh
# Builds the image without a network, on a base made here, for the tests beside this file. May be run again.
#
#   From Debian:  buildah, podman, runc, debootstrap; and by debootstrap a base with Python, once
#   From PyPI:    the wheels of the lock files, each checked against its hash, before the build begins
#
# Everything is kept under .image/ at the top of the checkout; remove that directory to begin anew.
set -eu

top=$(cd "$(dirname "$0")/../.." && pwd)
here="$top/.image"
storage="--root $here/storage --runroot $here/run --storage-driver vfs"
python="$top/.venv/bin/python"
suite=bookworm
base_python=3.11

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "The image is tested by root on Debian or Ubuntu: it makes file systems and mounts them." >&2
  exit 1
fi
missing=""
for tool in buildah podman runc debootstrap; do
  command -v "$tool" >/dev/null || missing="$missing $tool"
done
if [ -n "$missing" ]; then
  echo "Installing from Debian:$missing"
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
fi

mkdir -p "$here"
if ! buildah $storage inspect --type image rampart-test-base >/dev/null 2>&1; then
  echo "Making a base of Debian $suite with its Python"
  rm -rf "$here/base"
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$here/base" >"$here/debootstrap.log"
  rm -rf "$here/base/var/cache/apt" "$here/base/var/lib/apt/lists"
  container=$(buildah $storage from scratch)
  buildah $storage copy --quiet "$container" "$here/base" / >/dev/null
  buildah $storage commit --quiet --rm "$container" rampart-test-base >/dev/null
  rm -rf "$here/base"
fi

echo "Fetching the wheels of the lock files"
mkdir -p "$here/wheels"
for lock in requirements.lock requirements-build.lock; do
  "$python" -m pip --disable-pip-version-check download --quiet --require-hashes --no-deps --only-binary :all: \
    --python-version "$base_python" --dest "$here/wheels" -r "$top/$lock"
done

echo "Building, with no package index and no network"
rm -rf "$here/context"
mkdir "$here/context"
(cd "$top" && git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --create) |
  tar -x -C "$here/context"
cp -r "$here/wheels" "$here/context/wheels"
# Within chroot isolation buildah only knows the host's network: so the host has none, either.
unshare --net buildah $storage bud --quiet --isolation chroot --network host --pull-never --format docker \
  --build-arg BASE=rampart-test-base --build-arg PIP_NO_INDEX=1 \
  --build-arg VERSION="$("$python" -c 'import controller; print(controller.__version__)')" \
  --build-arg REVISION="$(git -C "$top" rev-parse HEAD)" \
  --tag rampart-test "$here/context" >/dev/null
rm -rf "$here/context"
buildah $storage images
