#!/bin/sh
# Make or upgrade Temporal's schema in PostgreSQL. Every step may be repeated.
set -eu

SQL_PASSWORD=$(cat /run/secrets/postgres-password)
export SQL_PASSWORD

prepare() {
    database=$1
    schema=$2
    set -- --plugin postgres12 --ep postgresql -p 5432 -u temporal --db "$database"
    temporal-sql-tool "$@" create
    temporal-sql-tool "$@" setup-schema -v 0.0
    temporal-sql-tool "$@" update-schema -d "/etc/temporal/schema/postgresql/v12/$schema/versioned"
}

prepare temporal temporal
prepare temporal_visibility visibility
