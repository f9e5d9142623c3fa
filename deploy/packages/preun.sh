#!/bin/sh
# RPM: an upgrade ($1 is 1) leaves the agent running until the new one is there.
if [ "$1" -eq 0 ]; then
    if [ -x /usr/bin/systemctl ]; then systemctl --no-reload disable --now portolan.service || :; fi
    # With `pin = true` its programs would go on counting, for nobody.
    rm -rf /sys/fs/bpf/portolan
fi
