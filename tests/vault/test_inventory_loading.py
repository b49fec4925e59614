"""``leeward.yaml``: the lab's text is sound, and every kind of mistake is named at its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.errors import BadInput, InputErrors
from vault.inventory import Inventory, format_duration, format_size, parse_duration, parse_size
from vault.loading import load_inventory, load_inventory_source
from vault.template import LAB_INVENTORY

pytestmark = pytest.mark.unit
EXAMPLE = Path(__file__).parents[2] / "examples" / "leeward.yaml"


def load_text(tmp_path: Path, text: str) -> Inventory:
    path = tmp_path / "leeward.yaml"
    path.write_text(text)
    return load_inventory(path)


def complaints(tmp_path: Path, old: str, new: str) -> list[str]:
    """What is said about the lab's inventory with ``old`` changed to ``new``; ``old`` must be there."""
    assert old in LAB_INVENTORY
    with pytest.raises(InputErrors) as caught:
        load_text(tmp_path, LAB_INVENTORY.replace(old, new, 1))
    return [f"{error.where.rsplit('/', 1)[-1]}: {error.what} — {error.remedy}" for error in caught.value.errors]


def line_of(text: str) -> int:
    return LAB_INVENTORY[: LAB_INVENTORY.index(text)].count("\n") + 1


def test_the_lab_text_has_no_errors_and_describes_the_lab(tmp_path: Path) -> None:
    inventory = load_text(tmp_path, LAB_INVENTORY)
    assert list(inventory.machines) == ["payment-db", "payment-app-1", "payment-app-2", "web"]
    database = inventory.machines["payment-db"].lab
    assert database is not None
    assert [(disk.name, disk.size) for disk in database.disks] == [("log", 32 * 2**20), ("data", 64 * 2**20)]
    relationship = inventory.relationship("web")
    assert (relationship.target_site, relationship.target_network) == ("recovery", "production")
    assert relationship.test_network == "isolated"
    assert relationship.frequency_s == 5


def test_the_example_is_the_text_that_init_writes() -> None:
    assert EXAMPLE.read_text() == LAB_INVENTORY


def test_an_inventory_survives_json(tmp_path: Path) -> None:
    inventory = load_text(tmp_path, LAB_INVENTORY)
    assert Inventory.model_validate_json(inventory.model_dump_json()) == inventory


def test_unknown_names_are_told_together_with_what_else_is_wrong(tmp_path: Path) -> None:
    text = LAB_INVENTORY
    for old, new in (
        ("    frequency: 5s", "    frequency: 5"),
        ("    policy: gold", "    policy: glod"),
        ("    test: recovery/isolated", "    test: recvery/isolated"),
        ("    network: production", "    network: prodction"),
    ):
        text = text.replace(old, new, 1)
    with pytest.raises(InputErrors) as caught:
        load_text(tmp_path, text)
    assert [error.what for error in caught.value.errors] == [
        "'5' has no unit",
        "unknown site 'recvery'",
        "site 'primary' has no network 'prodction'",
        "unknown policy 'glod'",
    ]


def test_nothing_is_unknown_where_the_part_that_has_the_names_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputErrors) as caught:
        load_text(tmp_path, LAB_INVENTORY.replace("\npolicies:", "\npolices:"))
    assert [error.what for error in caught.value.errors] == ["'policies' is missing", "unknown key 'polices'"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("    network: production", "    netwrok: production", "unknown key 'netwrok' — did you mean 'network'?"),
        ("    network: production", "    # gone", "'network' is missing"),
        ("    policy: gold", "    policy: glod", "unknown policy 'glod' — did you mean 'gold'?"),
        ("    target: recovery\n", "    target: recvery\n", "unknown site 'recvery' — did you mean 'recovery'?"),
        ("    target: recovery\n", "    target: primary\n", "both as its own and as its target"),
        ("    network: production", "    network: isolated", "must be a network of kind 'production'"),
        ("    test: recovery/isolated", "    test: recovery/production", "must be a network of kind 'isolated'"),
        ("    test: recovery/isolated", "    test: primary/isolated", "is not at site 'recovery'"),
        ("  - source: primary/production", "  - source: primary/prod", "has no network 'prod'"),
        ("  - source: primary/production", "  - source: primary", "write it as 'site/network'"),
        ("    frequency: 5s", "    frequency: 5", "has no unit — write a duration"),
        ("    frequency: 5s", "    frequency: 0s", "greater than 0"),
        ("      count: 24", "      count: many", "'count' must be a whole number, not 'many'"),
        ('      from: "18:00"', '      from: "6 pm"', "not a time of day"),
        ('      from: "18:00"', '      from: "06:00"', "ends at 06:00, when it begins — write 'resync: at-once'"),
        ("  payment-db:", "  payment db:", "'payment db' is not a valid name"),
        ("          size: 32MiB", "          size: 32MB", "is not a size"),
        ("        - name: data", "        - name: log", "disk 'log' is there twice"),
        ("    fabric: lab", "    fabric: labb", "'labb' is not allowed for 'fabric' — did you mean 'lab'?"),
        ("version: 1", "version: 2", "'2' is not allowed for 'version'"),
    ],
)
def test_mistakes_are_named_at_their_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    found = complaints(tmp_path, old, new)
    assert any(says in line for line in found), found
    if "missing" not in says:  # what is missing is told at what it is missing from
        assert any(line.startswith(f"leeward.yaml:{line_of(old)}:") and says in line for line in found), found


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("  - source: primary/production", "  - source: primry/production", "unknown site 'primry'"),
        ("    target: recovery/production", "    target: recvery/production", "unknown site 'recvery'"),
        ("    target: recovery/production", "    target: recovery/prod", "site 'recovery' has no network 'prod'"),
    ],
)
def test_a_wrong_name_in_a_mapping_is_one_mistake(tmp_path: Path, old: str, new: str, says: str) -> None:
    """Not one more for each machine that has no other mapping."""
    (said,) = complaints(tmp_path, old, new)
    assert says in said


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = LAB_INVENTORY.replace("policy: gold", "policy: glod").replace("site: primary", "site: primry")
    with pytest.raises(InputErrors) as caught:
        load_text(tmp_path, text)
    assert len(caught.value.errors) == 8
    lines = [int(error.where.split(":")[-2]) for error in caught.value.errors]
    assert lines == sorted(lines)
    assert len(str(caught.value).splitlines()) == 8


def test_a_machine_without_mapping_is_refused(tmp_path: Path) -> None:
    start = LAB_INVENTORY.index("network_mappings:")
    end = LAB_INVENTORY.index("machines:\n  payment-db")
    with pytest.raises(InputErrors, match="no network mapping leads from primary/production to site 'recovery'"):
        load_text(tmp_path, LAB_INVENTORY[:start] + LAB_INVENTORY[end:])


def test_a_network_mapped_twice_is_refused_in_either_direction(tmp_path: Path) -> None:
    again = (
        "  - source: recovery/production\n    target: primary/production\n"
        "    test: primary/isolated\n    source_test: recovery/isolated\n"
    )
    found = complaints(tmp_path, "\nmachines:\n", again + "\nmachines:\n")
    assert any("mapped to site 'primary' twice" in line for line in found)


def test_a_secret_put_where_a_reference_belongs_is_never_quoted(tmp_path: Path) -> None:
    for key in ("credentials", "replica_key", "pki"):
        found = complaints(tmp_path, "    fabric: lab\n", f"    fabric: lab\n    {key}: hunter2\n")
        assert "hunter2" not in "".join(found)
        assert "not a reference to a secret" in found[0]


@pytest.mark.parametrize("written", ["!hunter2", "*hunter2", "!!hunter2", "&hunter2 [*hunter2]"])
def test_nor_is_one_that_yaml_takes_for_something_else(tmp_path: Path, written: str) -> None:
    """Passwords begin with anything."""
    path = tmp_path / "leeward.yaml"
    path.write_text(LAB_INVENTORY.replace("    fabric: lab\n", f"    fabric: lab\n    credentials: {written}\n", 1))
    with pytest.raises(BadInput, match=r"leeward\.yaml:\d+:\d+: .* — ") as caught:
        load_inventory(path)
    assert "hunter2" not in str(caught.value)


def test_an_address_with_a_password_in_it_is_not_quoted(tmp_path: Path) -> None:
    addresses = "notifications:\n  - url: htps://hooks.example.com/hunter2\n\nmachines:\n"
    found = complaints(tmp_path, "machines:\n", addresses)
    assert [line.split(": ", 1)[1] for line in found] == [
        "'url': this value is not an address — begin it with http:// or https://, then the host"
    ]


def test_positions_stay_available(tmp_path: Path) -> None:
    path = tmp_path / "leeward.yaml"
    path.write_text(LAB_INVENTORY)
    loaded = load_inventory_source(path)
    assert loaded.source.where(("machines", "web"), key=True) == f"{path}:{line_of('  web:')}:3"


@given(st.floats(min_value=0, max_value=1e9, allow_nan=False))
def test_durations_are_written_as_they_are_read(seconds: float) -> None:
    if seconds == 0 or seconds >= 1e-6:
        assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(min_value=0, max_value=2**59))
def test_sizes_are_written_as_they_are_read(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("5m", 300), ("1.5h", 5400), ("2d", 172800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", ["5", "s", "-5s", "5 weeks", "9" * 400 + "s", "٣s", 5, None, True, [], {}])
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="write a"):
        parse_duration(value)
