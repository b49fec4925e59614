"""What leeward knows about a machine's change tracking, as host-only pairs of the machine (``docs/formats.md``).

They are part of the machine's configuration on the host, so they move with it, and whichever worker asks finds them.
The pairs of one record carry its revision in their names; a new record is added before the old one is removed.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from adapters.hyperv.facts import HostItem
from replication.blockmap import MapCut, MapState

MAGIC, VERSION = "LWRCT", 1
PREFIX = "leeward.tracking."
PIECE = 900
"""A host refuses values of 1024 characters and more (``MaxLen`` of Msvm_KvpExchangeDataItem.Data)."""
_NAME = re.compile(re.escape(PREFIX) + r"(\d{1,18})\.(\d{1,3})")


@dataclass(frozen=True)
class Record:
    """Attributes:
    references: reference points by generation: writes of later generations came after it.
    unneeded: reference points that are to be destroyed, until they are seen to be gone.
    """

    state: MapState = field(default_factory=MapState)
    references: dict[int, str] = field(default_factory=dict)
    unneeded: tuple[str, ...] = ()
    revision: int = 0


def encode(record: Record) -> list[HostItem]:
    body = json.dumps(
        {
            "state": asdict(record.state),
            "references": {str(generation): point for generation, point in record.references.items()},
            "unneeded": record.unneeded,
        },
        separators=(",", ":"),
    )
    text = f"{MAGIC} {VERSION} {zlib.crc32(body.encode()):08x} {body}"
    pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
    return [HostItem(name=f"{PREFIX}{record.revision}.{at}", value=piece) for at, piece in enumerate(pieces)]


def decode(items: Iterable[HostItem]) -> Record:
    """The newest record that is whole; of revision 0 and with nothing tracked when there is none."""
    pieces: dict[int, dict[int, str]] = {}
    for item in items:
        if match := _NAME.fullmatch(item.name):
            pieces.setdefault(int(match[1]), {})[int(match[2])] = item.value
    for revision in sorted(pieces, reverse=True):
        found = _decode("".join(pieces[revision][at] for at in sorted(pieces[revision])), revision)
        if found is not None:
            return found
    return Record(revision=max(pieces, default=0))


def _decode(text: str, revision: int) -> Record | None:
    """None for a record that was half written, or is of another version: changes since the last cut are not known then,
    and source and replica are compared."""
    magic, _, rest = text.partition(" ")
    version, _, rest = rest.partition(" ")
    checksum, _, body = rest.partition(" ")
    if (magic, version, checksum) != (MAGIC, str(VERSION), f"{zlib.crc32(body.encode()):08x}"):
        return None
    known = json.loads(body)
    state = known["state"]
    state |= {"cuts": tuple(MapCut(**made) for made in state["cuts"]), "snapshots": tuple(state["snapshots"])}
    references = {int(generation): point for generation, point in known["references"].items()}
    return Record(MapState(**state), references, tuple(known["unneeded"]), revision)
