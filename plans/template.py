"""The recovery plan that ``leeward init --lab`` writes; ``examples/payments.plan.yaml`` is the same text."""

from __future__ import annotations

LAB_PLAN = """\
# The recovery plan of the payments application: the database first, then what talks to it, then what customers see.
# Check it with:  leeward plan check payments      The language is explained in docs/plans.md.

plan: payments
description: Payments database, its two application servers and the web server in front of them.

on_failure: wait            # a failed step waits for an operator: retry, skip or cancel

variables:
  service: payments.example.com
variables_for:
  test:
    service: payments.test.example.com

groups:
  - name: database
    machines:
      - machine: payment-db
        boot_timeout: 2m
    before:
      - script: Note the start in the run log
        timeout: 30s
        environment:
          RUN_LOG_DIRECTORY: /tmp/leeward-payments
        run: |
          mkdir -p "$RUN_LOG_DIRECTORY"
          printf '%s\\n' "$(date -u +%FT%TZ) $LEEWARD_RUN_TYPE run of $LEEWARD_PLAN begins ({{ direction }})" \\
            >> "$RUN_LOG_DIRECTORY/$LEEWARD_RUN_ID.log"
    after:
      - check: The database answers
        tcp: payment-db
        timeout: 1m
      - script: Report what the recovered database machine is told
        on: payment-db
        timeout: 1m
        run: |
          printf '%s\\n' "recovered as {{ machines['payment-db'].name }} on {{ machines['payment-db'].network }}"
          printf '%s\\n' "run $LEEWARD_RUN_ID, type $LEEWARD_RUN_TYPE, group $LEEWARD_GROUP"

  - name: application
    machines:
      - payment-app-1
      - payment-app-2
    after:
      - check: The first application server answers
        http: {machine: payment-app-1, path: /health, status: 200}
        timeout: 1m
      - check: The second application server answers
        http: {machine: payment-app-2, path: /health, status: 200}
        timeout: 1m
      - script: Write the addresses for the load balancer
        interpreter: python3
        timeout: 30s
        environment:
          POOL_DIRECTORY: /tmp/leeward-payments
        run: |
          import json, os, pathlib
          context = json.loads(pathlib.Path(os.environ["LEEWARD_CONTEXT"]).read_text())
          pool = {
              name: context["machines"][name]["address"]
              for name in ("payment-app-1", "payment-app-2")
              if name not in context["left_out"]
          }
          folder = pathlib.Path(os.environ["POOL_DIRECTORY"])
          folder.mkdir(parents=True, exist_ok=True)
          (folder / f"{context['run_id']}.pool.json").write_text(json.dumps(pool, indent=2) + "\\n")
          print(f"{len(pool)} application servers are in the pool of {{ service }}")

  - name: web
    machines:
      - web
    after:
      - check: The shop answers
        http: {machine: web, path: /health, status: 200}
        timeout: 1m
      - manual: Confirm that DNS was switched
        runs: [planned, unplanned, failback]
        instructions: |
          1. Point **{{ service }}** at `{{ machines.web.address }}` (site *{{ machines.web.site }}*).
          2. Check with `dig +short {{ service }}` that the change is visible.
          3. Approve this step.

commit: manual
reverse_replication: manual
"""
