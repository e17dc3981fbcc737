#!/usr/bin/env bash
# Print an interpreter that starts and is Python X.Y: find_python.sh X.Y
set -euo pipefail
shopt -s nullglob

want=$1
for candidate in "python$want" /usr/local/bin/"python$want" "$HOME"/.pyenv/versions/"$want".*/bin/"python$want"; do
    # A name on PATH may be a shim of a version manager that refuses to start.
    if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$want')" 2>/dev/null; then
        echo "$candidate"
        exit 0
    fi
done
exit 1
