#!/usr/bin/env bash
# Install Debian packages, as root or with sudo, and say so; where that is impossible, say what is missing: packages.sh NAME...
# Nothing that comes with them is left running: the tests and the demo start brokers of their own on free ports.
set -euo pipefail

say() { echo "setup: $*" >&2; }
as_root=()
if [ "$(id -u)" != 0 ]; then
    as_root=(sudo)
    [ -t 0 ] || as_root=(sudo -n) # nobody is there to type a password
fi
if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
    say "cannot install these here, please do: $*"
    exit 1
fi

say "installing Debian packages: $*"
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap '"${as_root[@]}" rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" install -m 755 /dev/stdin $policy
fi
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
"${apt[@]}" update </dev/null
"${apt[@]}" -y install --no-install-recommends "$@" </dev/null >/dev/null
if [[ " $* " == *" mosquitto "* ]] && command -v systemctl >/dev/null; then
    "${as_root[@]}" systemctl --quiet disable mosquitto.service
fi
