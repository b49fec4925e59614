#!/bin/sh
# Temporal's image takes the database password only from its environment: read it from the secret's file at start, so
# that it stands neither in the compose file nor in `docker inspect`.
set -eu

POSTGRES_PWD=$(cat /run/secrets/postgres-password)
export POSTGRES_PWD
exec /etc/temporal/entrypoint.sh
