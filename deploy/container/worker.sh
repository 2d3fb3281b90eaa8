#!/bin/sh
# Starts the worker of this container under a name that never comes twice, where worker_health.py finds it.
set -eu
name="worker-$(hostname)-$(cat /proc/sys/kernel/random/uuid)"
echo "$name" > "${TMPDIR:-/tmp}/foi-worker-name"
exec python -m worker --name "$name"
