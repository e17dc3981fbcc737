#!/usr/bin/env bash
# What some tests need besides `make setup`, on Debian: installed when missing; without it those tests skip and say so.
set -euo pipefail

missing=()
need() { # COMMAND PACKAGE...
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || missing+=("${@:2}")
}
need cc gcc libc6-dev # bad disks and clocks are small C libraries
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
need nbdkit nbdkit # disks that lose power
need nbdfuse libnbd-bin fuse3
need mkfs.ext4 e2fsprogs
need ip iproute2 # a line of their own between gateway and hub
need nats-server nats-server
need setpriv util-linux
[ ${#missing[@]} = 0 ] || scripts/packages.sh "${missing[@]}"
