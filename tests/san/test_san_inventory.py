"""What the inventory may say about arrays, and the mistakes in it, each at its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vault.errors import InputErrors
from vault.loading import load_inventory
from vault.pools import mapped_pool, pools_mapped_to

pytestmark = pytest.mark.unit

STORAGE = """\
    storage:
      kind: smis
      url: https://array.example.com:5989
      user: leeward
      password: env:ARRAY_PASSWORD
      array: ARRAY-1
      pool: "ARRAY-1:gold"
      initiators: [host-1]
      portal: array.example.com:10809
"""
SAN = "    san: {group: payments, volumes: {log: db-log}}\n"


def inventory(
    *,
    primary: str = STORAGE,
    recovery: str = STORAGE,
    san: str = SAN,
    more: str = "",
    policy: str = "frequency: 5s",
    mappings: str = "",
) -> str:
    networks = "    networks: {production: {kind: production}, isolated: {kind: isolated}}\n"
    return (
        "version: 1\nsites:\n"
        f"  primary:\n    fabric: lab\n{networks}{primary}"
        f"  recovery:\n    fabric: lab\n{networks}{recovery}"
        f"policies:\n  gold: {{{policy}}}\n"
        "network_mappings:\n"
        "  - {source: primary/production, target: recovery/production, test: recovery/isolated,"
        " source_test: primary/isolated}\n"
        f"{mappings}"
        "machines:\n  db:\n    site: primary\n    target: recovery\n    network: production\n    policy: gold\n"
        "    lab: {disks: [{name: log, size: 1MiB}]}\n"
        f"{san}{more}"
    )


def load(tmp_path: Path, **parts: str) -> Any:
    path = tmp_path / "leeward.yaml"
    path.write_text(inventory(**parts))
    return load_inventory(path)


def test_a_machine_on_an_array(tmp_path: Path) -> None:
    found = load(tmp_path)
    assert found.machines["db"].san.volumes == {"log": "db-log"}
    assert found.sites["primary"].storage.when_link_is_lost == "go on"


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"recovery": ""}, "machine 'db' is on an array, but site 'recovery' has no 'storage'"),
        ({"san": "    san: {group: payments, volumes: {system: db-log}}\n"}, "machine 'db' has the disks log"),
        ({"primary": STORAGE.replace("      portal: array.example.com:10809\n", "")}, "has no 'portal'"),
        ({"primary": STORAGE.replace("env:ARRAY_PASSWORD", "hunter2")}, "is not a reference to a secret"),
        ({"primary": STORAGE.replace("https://", "http://")}, "'url'"),
        (
            {"policy": "frequency: 5s, app_consistent_every: 1h"},
            "machine 'db' is replicated by an array, which makes no app-consistent recovery points",
        ),
        (
            {
                "more": "  web:\n    site: recovery\n    target: primary\n    network: production\n    policy: gold\n"
                "    lab: {disks: [{name: log, size: 1MiB}]}\n"
                "    san: {group: payments, volumes: {log: web-log}}\n"
            },
            "machine 'web' is in group 'payments' with 'db', which has other sites",
        ),
        (
            {
                "more": "  web:\n    site: primary\n    target: recovery\n    network: production\n    policy: gold\n"
                "    lab: {disks: [{name: log, size: 1MiB}]}\n"
                "consistency_groups: {shop: [db, web]}\n"
            },
            "machine 'db' is in consistency group 'shop', but an array keeps only one point",
        ),
    ],
)
def test_mistakes_are_told(tmp_path: Path, parts: dict[str, str], told: str) -> None:
    with pytest.raises(InputErrors) as refused:
        load(tmp_path, **parts)
    assert told in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert all(error.where.startswith(str(tmp_path)) or ":" in error.where for error in refused.value.errors)


SWORDFISH = STORAGE.replace("kind: smis", "kind: swordfish").replace('      pool: "ARRAY-1:gold"\n', "")


def test_arrays_of_one_machine_are_managed_in_one_language(tmp_path: Path) -> None:
    assert load(tmp_path, primary=SWORDFISH, recovery=SWORDFISH).relationship("db").only_moves
    assert not load(tmp_path).relationship("db").only_moves
    with pytest.raises(InputErrors, match="would manage by smis and swordfish"):
        load(tmp_path, recovery=SWORDFISH)
    with pytest.raises(InputErrors, match="pool"):
        load(tmp_path, primary=STORAGE.replace("kind: smis", "kind: swordfish"))


def test_machines_of_a_group_have_one_mode(tmp_path: Path) -> None:
    other = (
        "  web:\n    site: primary\n    target: recovery\n    network: production\n    policy: gold\n"
        "    lab: {disks: [{name: log, size: 1MiB}]}\n"
        "    san: {group: payments, mode: asynchronous, volumes: {log: web-log}}\n"
    )
    with pytest.raises(InputErrors, match="'web' is mirrored in another mode than 'db' of its group 'payments'"):
        load(tmp_path, more=other)
    both = SAN.replace("payments,", "payments, mode: asynchronous,")
    assert load(tmp_path, san=both, more=other).relationship("db").replication_group == "payments"


def pools(*mappings: str) -> str:
    return "storage_mappings:\n" + "".join(f"  - {{{mapping}}}\n" for mapping in mappings)


def test_storage_mappings_hold_in_both_directions(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        mappings=pools(
            "source: 'primary/A:gold', target: 'recovery/B:gold'",
            "source: 'primary/A:tin', target: 'recovery/B:cheap'",
            "source: 'primary/A:lead', target: 'recovery/B:cheap'",
            "source: 'primary/A:a/b', target: 'recovery/B:c/d'",
        ),
    )
    ahead = {pool: mapped_pool(found, "primary", f"A:{pool}", "recovery") for pool in ("gold", "tin", "lead", "a/b")}
    assert ahead == {"gold": "B:gold", "tin": "B:cheap", "lead": "B:cheap", "a/b": "B:c/d"}
    back = {pool: mapped_pool(found, "recovery", f"B:{pool}", "primary") for pool in ("gold", "cheap", "c/d", "new")}
    assert back == {"gold": "A:gold", "cheap": None, "c/d": "A:a/b", "new": None}
    assert mapped_pool(found, "primary", "A:gold", "third") is None
    assert pools_mapped_to(found, "recovery", "primary") == ["B:gold", "B:cheap", "B:c/d"]


def test_the_way_back_from_a_pool_that_several_are_mapped_to_can_be_said(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        mappings=pools(
            "source: 'primary/A:tin', target: 'recovery/B:cheap'",
            "source: 'primary/A:lead', target: 'recovery/B:cheap'",
            "source: 'recovery/B:cheap', target: 'primary/A:lead'",
        ),
    )
    assert mapped_pool(found, "recovery", "B:cheap", "primary") == "A:lead"
    assert mapped_pool(found, "primary", "A:tin", "recovery") == "B:cheap"


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"mappings": pools("source: 'primry/A:gold', target: 'recovery/B:gold'")}, "did you mean 'primary'?"),
        (
            {"recovery": "", "san": "", "mappings": pools("source: 'primary/A:gold', target: 'recovery/B:gold'")},
            "site 'recovery' has no array, and so no storage pools",
        ),
        (
            {"mappings": pools("source: 'primary/A:gold', target: 'primary/A:tin'")},
            "leads from site 'primary' to itself",
        ),
        ({"mappings": pools("source: 'A:gold', target: 'recovery/B:gold'")}, "does not name a storage pool"),
        (
            {
                "mappings": pools(
                    "source: 'primary/A:gold', target: 'recovery/B:gold'",
                    "source: 'primary/A:gold', target: 'recovery/B:tin'",
                )
            },
            "pool 'primary/A:gold' is mapped to site 'recovery' twice, first to 'recovery/B:gold' in line 32",
        ),
    ],
)
def test_mistakes_in_storage_mappings_are_told_at_their_line(tmp_path: Path, parts: dict[str, str], told: str) -> None:
    with pytest.raises(InputErrors) as refused:
        load(tmp_path, **parts)
    (error,) = refused.value.errors
    assert told in str(error)
    lines = (tmp_path / "leeward.yaml").read_text().splitlines()
    assert lines[int(error.where.rsplit(":", 2)[1]) - 1].startswith("  - {source: ")


def test_an_unknown_site_of_a_storage_mapping_is_told_with_what_else_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputErrors) as refused:
        load(tmp_path, policy="frequency: 5", mappings=pools("source: 'primry/A:gold', target: 'recovery/B:gold'"))
    assert [error.what for error in refused.value.errors] == ["'5' has no unit", "unknown site 'primry'"]
