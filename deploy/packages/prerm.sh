#!/bin/sh
# Debian: an upgrade leaves the agent running until the new one is there.
set -e
if [ "$1" = remove ]; then
    if [ -d /run/systemd/system ]; then
        deb-systemd-invoke stop portolan.service >/dev/null || true
    fi
    # With `pin = true` its programs would go on counting, for nobody.
    rm -rf /sys/fs/bpf/portolan
fi
