"""Durable workflows: the machine (entity), one module per lifecycle phase, the recovery plan and its groups."""
