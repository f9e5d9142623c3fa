#!/bin/sh
# Debian: removing keeps configuration and state, purging deletes both.
set -e
if [ -d /run/systemd/system ] && [ "$1" = remove ]; then
    systemctl --system daemon-reload >/dev/null || true
fi
if [ "$1" = remove ] && command -v deb-systemd-helper >/dev/null; then
    deb-systemd-helper mask portolan.service >/dev/null || true
fi
if [ "$1" = purge ]; then
    if command -v deb-systemd-helper >/dev/null; then
        deb-systemd-helper purge portolan.service >/dev/null || true
        deb-systemd-helper unmask portolan.service >/dev/null || true
    fi
    rm -rf /var/lib/portolan /var/log/portolan
fi
