#!/usr/bin/env bash
# Put a program where a service belongs: install.sh VENV WHEEL edged|edged-hub [DESTDIR]. Without DESTDIR this machine
# knows it afterwards. /etc/edged, the store and the enablement stay as they are; a running service keeps the old version until restarted.
set -euo pipefail

venv=$1 wheel=$2 program=$3 destdir=${4:-}
case $program in
edged) module=edged.cli.main requirements=gateway ;;
edged-hub) module=edged.hub.cli requirements=hub ;;
*) echo "install: expected edged or edged-hub, got '$program'" >&2; exit 2 ;;
esac
# The system's own interpreter: the service cannot see /home and /root, where others may lie.
python=${SERVICE_PYTHON:-/usr/bin/python3}
say() { echo "install: $*" >&2; }

[ -n "$destdir" ] || [ "$(id -u)" = 0 ] || { say "writes to /usr: run it as root, or give DESTDIR"; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { say "$python is no Python >= 3.11"; exit 1; }
# With its minor version, for which the packages are built: another one must fail by name, not by a strange import error.
python=$("$python" -c 'import sys; print("/usr/bin/python%d.%d" % sys.version_info[:2])')

lib=$destdir/usr/lib/$program
say "Python packages of requirements/$requirements.txt into $lib, for $python"
rm -rf "$lib.new" "$lib.old"
pip=("$venv/bin/python" -m pip --python "$python" --disable-pip-version-check --quiet install --no-input --no-compile --root-user-action ignore)
"${pip[@]}" --require-hashes --only-binary :all: --target "$lib.new" -r "requirements/$requirements.txt"
"${pip[@]}" --no-deps --upgrade --target "$lib.new" "$wheel"
rm -rf "$lib.new/bin"
"$python" -m compileall -q -s "$lib.new" -p "/usr/lib/$program" "$lib.new" # now: the service must not write there
chmod -R u=rwX,go=rX "$lib.new"
[ ! -e "$lib" ] || mv "$lib" "$lib.old"
mv "$lib.new" "$lib"
rm -rf "$lib.old"

install -D -m 755 /dev/stdin "$destdir/usr/bin/$program" <<END
#!$python -IXfaulthandler
import sys

sys.path.insert(0, "/usr/lib/$program")
from $module import main

sys.exit(main())
END
install -D -m 644 "systemd/$program.service" "$destdir/usr/lib/systemd/system/$program.service"
install -D -m 644 "systemd/$program.sysusers" "$destdir/usr/lib/sysusers.d/$program.conf"
if [ "$program" = edged ]; then
    install -D -m 644 -t "$destdir/usr/share/doc/edged/examples" configs/*.toml configs/*.conf
    install -d -m 755 "$destdir/etc/edged/conf.d"
else
    install -D -m 644 -t "$destdir/usr/share/doc/edged-hub/examples" configs/hub/*
    install -d -m 755 "$destdir/etc/edged-hub"
fi
[ -z "$destdir" ] || exit 0

systemd-sysusers "$program.conf"
[ ! -d /run/systemd/system ] || systemctl daemon-reload
say "done; next: a configuration in /etc/$program (examples in /usr/share/doc/$program/examples), $program check, systemctl enable --now $program"
