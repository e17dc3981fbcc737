#!/usr/bin/env bash
# Print the folder of a minimal Debian with the given packages, made once and then kept: debian_root.sh SUITE PACKAGE...
# Packages come from where this machine takes its own. Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=$1
shift
include=$(IFS=,; echo "$*")
root=$PWD/.cache/debian/$suite-$(echo "$include" | sha256sum | cut -c1-12)

if [ ! -e "$root/etc/debian_version" ]; then
    [ "$(id -u)" = 0 ] || { echo "debian_root: needs root, to make and enter another root file system" >&2; exit 1; }
    command -v mmdebstrap >/dev/null || scripts/packages.sh mmdebstrap
    # Empty where apt knows no Debian: mmdebstrap has a default of its own.
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' | awk '$1 == "Debian" {print $2; exit}')
    proxy=$(apt-config shell proxy Acquire::http::Proxy)
    eval "$proxy"
    echo "debian_root: making Debian $suite with $include in $root" >&2
    mkdir -p "${root%/*}"
    rm -rf "$root.part"
    mmdebstrap --quiet --mode=root --variant=minbase --include="$include" \
        ${proxy:+--aptopt="Acquire::http::Proxy \"$proxy\""} "$suite" "$root.part" ${mirror:+"$mirror"} >&2
    mv "$root.part" "$root"
fi
echo "$root"
