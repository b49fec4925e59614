"""A machine that was taken out of the inventory while it was protected."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_support import lab_machine, make_inventory

from adapters.registry import Adapters
from adapters.stream import StreamProvider
from vault.errors import NotFound


@pytest.mark.unit
def test_a_machine_that_the_workers_inventory_does_not_know_is_told_by_its_name(tmp_path: Path) -> None:
    relationship = make_inventory({"db": lab_machine()}).relationship("db")
    without = Adapters(make_inventory({"web": lab_machine()}), tmp_path)
    with pytest.raises(NotFound) as told:
        without.provider(relationship)
    assert str(told.value) == (
        "machine 'db' is protected, but this worker's inventory does not name it — write it there again and restart "
        "the workers; to end its protection: leeward disable db"
    )


@pytest.mark.unit
def test_what_bears_the_machines_name_can_be_cleaned_up_without_its_entry(tmp_path: Path) -> None:
    relationship = make_inventory({"db": lab_machine()}).relationship("db")
    without = Adapters(make_inventory({"web": lab_machine()}), tmp_path)
    for site in (relationship.source_site, relationship.target_site):
        assert isinstance(without.provider_to_end(relationship, site), StreamProvider)


@pytest.mark.unit
def test_what_does_not_is_left_alone_and_told(tmp_path: Path) -> None:
    """A virtual machine or a volume of that name may be somebody else's."""
    relationship = make_inventory({"db": lab_machine()}).relationship("db")
    site = relationship.target_site
    inventory = make_inventory({"web": lab_machine()})
    hyperv = inventory.sites[site].model_copy(update={"fabric": "hyperv"})
    on_hyperv = Adapters(inventory.model_copy(update={"sites": {**inventory.sites, site: hyperv}}), tmp_path)
    on_array = relationship.model_copy(update={"replication_group": "shop"})
    for adapters, one, remains in (
        (
            on_hyperv,
            relationship,
            "virtual machine it is: nothing was cleaned up — look for what remains, its replication",
        ),
        (Adapters(inventory, tmp_path), on_array, "group 'shop' on the array, and remove it by hand"),
    ):
        with pytest.raises(NotFound) as told:
            adapters.provider_to_end(one, site)
        assert str(told.value).startswith(f"site {site}: this worker's inventory does not name machine 'db' any more")
        assert remains in str(told.value)
