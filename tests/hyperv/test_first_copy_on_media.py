"""The first copy of Hyper-V Replica on a medium: exported by one host, imported by the other, then deltas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_fabric import FAR_HOST, HOST, SmallFabric, quiet
from test_provider_failover import ID, Pair, inventory
from typer.testing import CliRunner, Result

from adapters.hyperv import jobs
from adapters.hyperv.states import ReplicationState as State
from console.main import app
from vault.domain import PowerState
from vault.errors import BadInput, InvalidState, NotFound

SEED = Path("E:\\seeds of db")


@pytest.fixture
def pair() -> Pair:
    return Pair(inventory())


@pytest.mark.unit
def test_nothing_is_exported_before_the_relationship_is_there(pair: Pair) -> None:
    with pytest.raises(InvalidState, match="is not replicated yet") as early:
        pair.provider.export_seed(pair.forward, SEED, quiet)
    assert "leeward protect db --detach" in early.value.remedy
    with pytest.raises(NotFound, match="there is no replica of 'db' yet"):
        pair.provider.import_seed(pair.forward, SEED, quiet)
    missing = pair.provider.seed_missing(pair.forward)
    assert missing is not None
    assert "leeward seed import" in missing.doing


@pytest.mark.unit
@pytest.mark.parametrize("folder", ["/media/disk1", "seeds", "E:seeds", "\\\\"])
def test_the_folder_is_one_of_the_host(pair: Pair, folder: str) -> None:
    pair.provider.enable(pair.forward)
    with pytest.raises(BadInput, match="is not a folder of a Hyper-V host"):
        pair.provider.export_seed(pair.forward, Path(folder), quiet)
    assert pair.source.vm(ID).replication is State.READY_FOR_INITIAL_REPLICATION


@pytest.mark.unit
def test_an_export_is_made_once_and_again_when_asked(pair: Pair) -> None:
    pair.provider.enable(pair.forward)
    assert pair.provider.export_seed(pair.forward, SEED, quiet).moment is not None
    assert pair.provider.export_seed(pair.forward, SEED, quiet).moment is None
    pair.provider.export_seed(pair.forward, Path("F:\\other"), quiet, restart=True)
    wanted = ["export_initial_replication", "stop_initial_replication", "export_initial_replication"]
    assert [script for script in pair.source.ran if "initial" in script] == wanted
    assert pair.provider.seed_missing(pair.forward) is not None
    pair.provider.import_seed(pair.forward, Path("F:\\other"), quiet)
    assert pair.provider.seed_missing(pair.forward) is None
    pair.provider.import_seed(pair.forward, Path("F:\\other"), quiet)
    assert pair.target.ran.count("import_initial_replication") == 1
    pair.provider.copy_initial(pair.forward, quiet)
    pair.provider.finalize(pair.forward)
    with pytest.raises(InvalidState, match="cannot be exported"):
        pair.provider.export_seed(pair.forward, SEED, quiet)


# --- on the simulated fabric ------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallFabric]:
    monkeypatch.setattr(jobs, "FIRST_POLL_S", 0.02)
    fabric = SmallFabric(tmp_path)
    yield fabric
    fabric.close()


def seed(small: SmallFabric, *words: str) -> Result:
    where = ["--vault", str(small.vault), "--data", str(small.root)]
    return CliRunner().invoke(app, ["seed", *words, *where])


@pytest.mark.contract
def test_what_was_carried_is_not_sent_and_a_failover_loses_nothing(small: SmallFabric) -> None:
    small.provider.enable(small.forward)
    unplugged = seed(small, "export", "db", "--to", str(SEED))
    assert (unplugged.exit_code, "its drive is there" in unplugged.stderr) == (3, True), unplugged.output
    (small.fabric.media / "E").mkdir(parents=True)
    exported = seed(small, "export", "db", "--to", str(SEED))
    assert exported.exit_code == 0, exported.output
    assert "carry it to west, then there: leeward seed import db --from FOLDER" in exported.stdout
    assert small.vm(HOST).state is State.WAITING_FOR_INITIAL_REPLICATION
    wrong = seed(small, "import", "db", "--from", "E:\\elsewhere")
    assert (wrong.exit_code, "check the path" in wrong.stderr) == (3, True), wrong.output
    assert small.provider.seed_missing(small.forward) is not None
    imported = seed(small, "import", "db", "--from", str(SEED))
    assert imported.exit_code == 0, imported.output
    assert small.provider.seed_missing(small.forward) is None
    small.provider.copy_initial(small.forward, quiet)
    small.provider.finalize(small.forward)
    assert (small.vm(HOST).state, small.vm(FAR_HOST).state) == (State.REPLICATING, State.REPLICATING)
    assert small.east.shut_down("db", 20, quiet) is PowerState.OFF
    point = small.provider.send_last_changes(small.forward, quiet)
    assert small.recover(small.forward, point.id).lost == 0
