#!/usr/bin/env bash
# Print "INSTALLED:BASE", the layers of a Debian 12 with systemd, a broker and the edged of this checkout: system_root.sh
# The base is made once and kept in .cache/debian, edged is installed anew.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v systemd-nspawn >/dev/null || scripts/packages.sh systemd-container
base=$(scripts/debian_root.sh bookworm systemd systemd-sysv dbus python3 mosquitto mosquitto-clients)
installed=$PWD/.cache/debian/installed
minor() { "$@" -c 'import sys; print(sys.version_info[:2])'; }
if [ "$(minor "${SERVICE_PYTHON:-/usr/bin/python3}")" != "$(minor chroot "$base" python3)" ]; then
    echo "system_root: this machine's /usr/bin/python3 is not that of Debian 12; SERVICE_PYTHON=/usr/bin/python3.11 names one" >&2
    exit 1
fi
rm -rf "$installed"
make install install-hub DESTDIR="$installed" >&2
echo "$installed:$base"
