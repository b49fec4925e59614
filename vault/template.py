"""The commented inventory that ``leeward init --lab`` writes; ``examples/leeward.yaml`` is the same text."""

from __future__ import annotations

LAB_INVENTORY = """\
# What leeward protects: the sites, how often machines are replicated, which network stands for which on the
# other side, and the machines. Check it with:  leeward vault check
#
# This is a lab: two sites on this one computer. Its machines are real processes that boot from real disk images
# and keep writing to them, so a failover can be measured instead of believed.

version: 1

# A site is a place with one fabric. Every site needs a production network for recovered machines and an isolated
# one, where a test failover starts its copies without touching production.
sites:
  primary:
    fabric: lab
    description: where the machines run today
    # credentials: env:PRIMARY_PASSWORD   # a reference (env:NAME or file:PATH), never the secret itself
    # capacity: 20GiB                     # what images, logs and replicas may use; without it: the whole disk
    # pki: file:pki                       # this site's certificate, to show to master targets: leeward pki issue
    # cache: 1GiB                         # what may wait here while a target takes nothing
    # limits: {failovers_at_once: 4}      # so many machines are failed over to here at a time
    # bandwidth:                          # what this site may send to others, a second
    #   limit: 100MiB
    #   windows:
    #     - {days: [mon, tue, wed, thu, fri], from: "08:00", until: "18:00", limit: 10MiB}    # UTC
    networks:
      production:
        kind: production
      isolated:
        kind: isolated
        description: for test failovers
  recovery:
    fabric: lab
    description: where they are recovered
    # master_target: dr.example.com:7443  # its replicas are reached over mutual TLS: leeward master-target
    # pki: file:pki
    # replica_key: file:recovery.key      # what is replicated to this site is encrypted: leeward pki key
    networks:
      production:
        kind: production
      isolated:
        kind: isolated
        description: for test failovers

# How a machine is replicated. Durations need a unit: 500ms, 30s, 5m, 2h, 1d.
policies:
  gold:
    frequency: 5s                 # quick, to have something to look at; real policies use 30s, 5m or 15m
    retention:
      count: 24                   # keep at most so many recovery points, and the newest app-consistent one …
      hours: 24                   # … and none older than this; the newest is always kept
    app_consistent_every: 1m      # a recovery point with the applications' buffers flushed; real ones: 1h or more
    resync: window                # after a broken delta: window | at-once | manual
    resync_window:                # UTC; outside business hours
      from: "18:00"
      until: "06:00"
    initial_replication:
      method: network             # or media: people carry the first copy (leeward seed export, leeward seed import);
                                  # or existing, Hyper-V: a copy of the machine was restored at the target
      start: immediately          # or a time of day in UTC, like "22:00"

# Which network stands for which at the other site. A mapping holds in both directions, so failback needs no second.
network_mappings:
  - source: primary/production
    target: recovery/production
    test: recovery/isolated       # where test failovers run at the target …
    source_test: primary/isolated # … and at the source, once the direction is reversed

# Machines that share one truth can also be recovered to moments that all of them have:
# consistency_groups:
#   payments: [payment-db, payment-app-1]

machines:
  payment-db:
    description: the payments database
    site: primary
    target: recovery
    network: production
    policy: gold
    lab:
      disks:
        - name: log               # the first disk is the one that transactions are committed to
          size: 32MiB
        - name: data
          size: 64MiB
      # tracking: bitmap          # know changes by a map of blocks instead of a log of writes
      transactions_per_second: 80
      transaction_size: 4KiB

  payment-app-1:
    description: application server
    site: primary
    target: recovery
    network: production
    policy: gold
    lab:
      disks:
        - name: system
          size: 48MiB
      transactions_per_second: 40
      transaction_size: 4KiB

  payment-app-2:
    description: application server
    site: primary
    target: recovery
    network: production
    policy: gold
    lab:
      disks:
        - name: system
          size: 48MiB
      transactions_per_second: 40
      transaction_size: 4KiB

  web:
    description: the shop's web server
    site: primary
    target: recovery
    network: production
    policy: gold
    lab:
      disks:
        - name: system
          size: 48MiB
      transactions_per_second: 40
      transaction_size: 4KiB
"""
