"""Search attributes: the filters of the Temporal UI and of ``leeward jobs``."""

from __future__ import annotations

from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

MACHINE = SearchAttributeKey.for_keyword("LeewardMachine")
PLAN = SearchAttributeKey.for_keyword("LeewardPlan")
SITE = SearchAttributeKey.for_keyword("LeewardSite")
PHASE = SearchAttributeKey.for_keyword("LeewardPhase")
RUN_TYPE = SearchAttributeKey.for_keyword("LeewardRunType")
HEALTH = SearchAttributeKey.for_keyword("LeewardHealth")

ALL = (MACHINE, PLAN, SITE, PHASE, RUN_TYPE, HEALTH)


def attributes(
    *,
    machine: str | None = None,
    plan: str | None = None,
    site: str | None = None,
    phase: str | None = None,
    run_type: str | None = None,
    health: str | None = None,
) -> TypedSearchAttributes:
    """The given ones; those that are None are left out."""
    given = {MACHINE: machine, PLAN: plan, SITE: site, PHASE: phase, RUN_TYPE: run_type, HEALTH: health}
    return TypedSearchAttributes([SearchAttributePair(key, value) for key, value in given.items() if value is not None])
