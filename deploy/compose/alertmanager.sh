#!/bin/sh
# Starts Alertmanager with the repository's configuration, and the receiver that ALERT_WEBHOOK names or
# none. The URL may hold a token: it goes into a file that only this container has.
set -eu
if [ -n "${ALERT_WEBHOOK:-}" ]; then
    umask 077
    printf '%s' "$ALERT_WEBHOOK" > /tmp/webhook
    sed 's|^\( *- \)url: http://127.0.0.1:9095/$|\1url_file: /tmp/webhook|' /etc/alertmanager/portolan.yml
else
    sed '/^  webhook_configs:$/,/^  - url: /d' /etc/alertmanager/portolan.yml
fi > /tmp/alertmanager.yml
exec /bin/alertmanager --config.file=/tmp/alertmanager.yml --storage.path=/alertmanager \
    --web.listen-address=127.0.0.1:9093 --cluster.listen-address=
