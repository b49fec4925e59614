#!/bin/sh
# Make leeward's namespace and its search attributes. Every step may be repeated.
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

# One at a time: given several names at once, Temporal's tool makes only the first and reports success.
make_search_attribute() {
    attempts=0
    # A new namespace is known everywhere only after some seconds.
    until message=$(temporal operator search-attribute create --namespace "$TEMPORAL_NAMESPACE" \
        --name "$1" --type Keyword 2>&1); do
        attempts=$((attempts + 1))
        if [ "$attempts" -ge 15 ]; then
            echo "search attribute $1 cannot be made in namespace $TEMPORAL_NAMESPACE: $message" >&2
            exit 1
        fi
        sleep 2
    done
}

for name in LeewardMachine LeewardPlan LeewardSite LeewardPhase LeewardRunType LeewardHealth; do
    make_search_attribute "$name"
done
echo "namespace $TEMPORAL_NAMESPACE is ready"
