#!/bin/sh
# Make leeward's namespace and wait until it can be used. Every step may be repeated.
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

# A new namespace is known everywhere only after some seconds; workers that came earlier would be refused.
attempts=0
until temporal operator search-attribute list --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1; do
    attempts=$((attempts + 1))
    if [ "$attempts" -ge 30 ]; then
        echo "namespace $TEMPORAL_NAMESPACE does not become usable" >&2
        exit 1
    fi
    sleep 1
done
echo "namespace $TEMPORAL_NAMESPACE is ready"
