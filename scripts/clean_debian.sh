#!/usr/bin/env bash
# Run make targets in a fresh clone of HEAD on a Debian that has make and git and nothing else:
#   clean_debian.sh [--user] [--shared] [--suite trixie] 'demo SECONDS=30' test ...
# Every target is the only command on a Debian of its own. --user: without root, where the system packages are there
# already. --shared: the real data sets lie beside the clone. Needs root here; nothing of this machine is changed.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=bookworm user= shared=
while [[ ${1:-} == --* ]]; do
    case $1 in
        --user) user=1 ;;
        --shared) shared=1 ;;
        --suite) suite=$2; shift ;;
        *) echo "clean_debian: unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
[ $# -gt 0 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }

packages=(make git ca-certificates)
[ -z "$user" ] || packages+=(python3 python3-venv mosquitto gcc libc6-dev)
root=$(scripts/debian_root.sh "$suite" "${packages[@]}")
commit=$(git rev-parse --short HEAD)
upper=$(mktemp -d "$PWD/.cache/debian/run-XXXXXX")
trap 'rm -rf "$upper"' EXIT

folders=("$(git rev-parse --absolute-git-dir):/srv/origin.git")
[ -z "$shared" ] || folders+=("$(realpath ../shared):/srv/shared")

inside='
    set -e
    cd /srv
    git -c safe.directory="*" clone --quiet --no-hardlinks origin.git edged
    git -c safe.directory="*" -C edged checkout --quiet "$1"
    if [ -n "$2" ]; then
        useradd --create-home somebody
        chown -R somebody: edged
        cd edged
        exec setpriv --reuid somebody --regid somebody --clear-groups make $3
    fi
    cd edged
    exec make $3
'
number=0
for target; do
    number=$((number + 1))
    echo "clean_debian: Debian $(cat "$root/etc/debian_version"), commit $commit${user:+, not root}${shared:+, with ../shared}: make $target"
    start=$SECONDS
    status=0
    scripts/debian_enter.sh "$root" "$upper/$number" "${folders[@]}" -- \
        bash -c "$inside" inside "$commit" "$user" "$target" || status=$?
    echo "clean_debian: make $target ended with $status after $(((SECONDS - start) / 60)) min $(((SECONDS - start) % 60)) s"
    [ $status = 0 ] || exit $status
done
