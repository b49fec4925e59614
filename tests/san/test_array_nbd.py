"""Hosts reach an array's volumes by NBD: leeward's own client, and QEMU's where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from adapters.lab.nbd import READ_ONLY, NbdDisk
from adapters.smis.values import Operation
from tests.san.pairs import MIB, ArrayPair, arrays
from vault.errors import InvalidState, Unreachable

pytestmark = pytest.mark.contract


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[ArrayPair]:
    with arrays(tmp_path) as made:
        yield made


def portal(pair: ArrayPair) -> str:
    return f"127.0.0.1:{pair.east.data.port}"


def test_what_is_written_by_nbd_is_at_both_sides(pair: ArrayPair) -> None:
    group, (log,) = pair.mirrored("log")
    pair.east.expose([log.id], "host-1")
    with closing(NbdDisk(portal(pair), "host-1/log")) as disk:
        assert (disk.size, disk.flags & READ_ONLY) == (MIB, 0)
        disk.write(4096, b"transaction" * 100)
        disk.flush()
        assert disk.read(4096, 11) == b"transaction"
    assert pair.west.media.read(group.peer_volumes[0], 4096, 11) == b"transaction"


def test_a_volume_is_shown_only_to_hosts_that_it_is_exposed_to(pair: ArrayPair) -> None:
    _, (log,) = pair.mirrored("log")
    pair.east.expose([log.id], "host-1")
    with pytest.raises(InvalidState, match="shows no volume 'log' to host-2"):
        NbdDisk(portal(pair), "host-2/log")
    pair.east.hide([log.id], "host-1")
    with pytest.raises(InvalidState, match="shows no volume"):
        NbdDisk(portal(pair), "host-1/log")


def test_an_open_disk_is_write_protected_once_its_group_is_failed_over(pair: ArrayPair) -> None:
    _, (log,) = pair.mirrored("log")
    pair.east.expose([log.id], "host-1")
    with closing(NbdDisk(portal(pair), "host-1/log")) as disk:
        pair.do(pair.west, Operation.FAILOVER)
        with pytest.raises(InvalidState, match="write-protected"):
            disk.write(0, b"x")
    with pytest.raises(InvalidState, match="write-protected"):
        NbdDisk(portal(pair), "host-1/log")


def test_a_dead_array_is_unreachable(pair: ArrayPair) -> None:
    _, (log,) = pair.mirrored("log")
    pair.east.expose([log.id], "host-1")
    where = portal(pair)
    with closing(NbdDisk(where, "host-1/log")) as disk:
        pair.east.data.close()
        with pytest.raises(Unreachable):
            disk.write(0, b"x")
    with pytest.raises(Unreachable):
        NbdDisk(where, "host-1/log")


@pytest.mark.skipif(shutil.which("qemu-io") is None, reason="qemu-io is not installed")
def test_qemu_reads_what_leeward_wrote_and_the_other_way_round(pair: ArrayPair) -> None:
    _, (log,) = pair.mirrored("log")
    pair.east.expose([log.id], "host-1")
    url = f"nbd://{portal(pair)}/host-1/log"
    with closing(NbdDisk(portal(pair), "host-1/log")) as disk:
        disk.write(0, b"\xab" * 4096)
        commands = ("-c", "read -P 0xab 0 4096", "-c", "write -P 0xcd 4096 4096", "-c", "flush")
        told = subprocess.run(
            ["qemu-io", "-f", "raw", url, *commands], capture_output=True, text=True, timeout=20, check=True
        )
        assert "read 4096/4096" in told.stdout
        assert "failed" not in told.stdout + told.stderr
        assert disk.read(4096, 4096) == b"\xcd" * 4096
