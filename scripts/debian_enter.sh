#!/usr/bin/env bash
# Run a command in a root file system that stays as it is: debian_enter.sh ROOT UPPER [FOLDER:WHERE...] -- COMMAND...
# What the command writes lands in UPPER. FOLDERs of this machine are visible read-only, or writable with a + before.
# It has a process tree of its own that ends with it, no terminal, no HOME, no locale; and this machine's network,
# names, certificates and pip configuration, because it must be able to install.
set -euo pipefail

if [ "${EDGED_ENTERED:-}" != 1 ]; then
    [ "$(id -u)" = 0 ] || { echo "debian_enter: needs root, to enter another root file system" >&2; exit 1; }
    EDGED_ENTERED=1 exec unshare --mount --pid --fork --kill-child "$0" "$@"
fi

root=$1 upper=$2
shift 2
mkdir -p "$upper/files" "$upper/work" "$upper/root"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$upper/files,workdir=$upper/work" "$upper/root"
new=$upper/root

mount -t proc proc "$new/proc"
mount --rbind /dev "$new/dev"
mount --rbind /sys "$new/sys"
while [ "$1" != -- ]; do
    from=${1%%:*} to=$new${1#*:}
    mkdir -p "$to"
    mount --bind "${from#+}" "$to"
    [[ $from == +* ]] || mount -o remount,bind,ro "$to"
    shift
done
shift

for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    [ ! -e $file ] || install -D -m 644 $file "$new$file"
done
settings=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PIP_CERT=/etc/ssl/certs/ca-certificates.crt)
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_DEFAULT_TIMEOUT; do
    [ -z "${!name:-}" ] || settings+=("$name=${!name}")
done
chroot "$new" env -i "${settings[@]}" "$@" </dev/null
