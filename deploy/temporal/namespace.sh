#!/bin/sh
# Make leeward's namespace. Every step may be repeated.
set -eu

attempts=0
until temporal operator cluster health >/dev/null 2>&1; do
    attempts=$((attempts + 1))
    if [ "$attempts" -ge 30 ]; then
        echo "Temporal at $TEMPORAL_ADDRESS does not become healthy" >&2
        exit 1
    fi
    sleep 2
done

if ! temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1; then
    temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention "$LEEWARD_HISTORY_RETENTION"
fi
