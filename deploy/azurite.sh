#!/bin/sh
# Azurite takes its account ("name:key") only from its environment: read it from the secret's file at start.
set -eu

AZURITE_ACCOUNTS=$(cat /run/secrets/azurite-account)
export AZURITE_ACCOUNTS
exec azurite-blob --blobHost 0.0.0.0 --location /data --disableTelemetry
