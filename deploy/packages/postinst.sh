#!/bin/sh
# Debian: starts the agent, or restarts it after an upgrade. State and pins stay where they are.
set -e
if [ "$1" = configure ] || [ "$1" = abort-upgrade ] || [ "$1" = abort-remove ]; then
    if command -v systemd-sysusers >/dev/null; then
        systemd-sysusers portolan.conf
    fi
    # What the administrator has masked or disabled stays so.
    if command -v deb-systemd-helper >/dev/null; then
        deb-systemd-helper unmask portolan.service >/dev/null || true
        if deb-systemd-helper --quiet was-enabled portolan.service; then
            deb-systemd-helper enable portolan.service >/dev/null || true
        else
            deb-systemd-helper update-state portolan.service >/dev/null || true
        fi
    fi
    if [ -d /run/systemd/system ]; then
        systemctl --system daemon-reload >/dev/null || true
        action=start
        if [ -n "${2:-}" ]; then action=restart; fi
        deb-systemd-invoke "$action" portolan.service >/dev/null || true
    fi
fi
