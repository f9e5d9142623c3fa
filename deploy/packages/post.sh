#!/bin/sh
# RPM: systemd's presets decide whether the unit starts, as with systemd's own macros.
if command -v systemd-sysusers >/dev/null; then systemd-sysusers portolan.conf || :; fi
if [ "$1" -eq 1 ] && [ -x /usr/bin/systemctl ]; then
    systemctl --no-reload preset portolan.service || :
fi
