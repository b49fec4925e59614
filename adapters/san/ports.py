"""What leeward needs of a storage array and of the hosts in front of it, whatever dialect the array speaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol, runtime_checkable

from pydantic import AwareDatetime

from adapters.ports import Hypervisor
from vault.domain import Finding, MachineDescription, Value
from vault.errors import InvalidState

Watch = Callable[[str, int], None]
"""Called while an array's job runs, with its name and percent. It may raise to end the waiting, not the job."""


def unwatched(_: str, __: int) -> None:
    """For jobs that are short."""


class GroupState(StrEnum):
    LOCAL = "not replicated"
    COPYING = "being copied"
    SYNCHRONIZED = "synchronized"
    LINK_LOST = "cut off from the other array"
    SUSPENDED = "suspended"
    SPLIT = "split"
    FAILED_OVER = "failed over"
    OTHER = "in a state that leeward does not know"


class Step(StrEnum):
    """What leeward does with groups; an array says which of it it can."""

    MIRROR = "mirror synchronously to another array"
    MIRROR_ASYNCHRONOUSLY = "mirror asynchronously to another array"
    CLONE = "clone volumes"
    FAIL_OVER = "fail over"
    FAIL_BACK = "fail back"
    REVERSE = "reverse roles"
    RESUME = "resume"
    SPLIT = "split"
    DETACH = "detach"


class Volume(Value):
    """``hosts``: the initiators that see it. ``size`` is in bytes."""

    id: str
    name: str
    size: int
    hosts: frozenset[str] = frozenset()


class Group(Value):
    """A replication group as one of its two arrays tells it.

    Attributes:
        is_source: the direction of the relationship; meaningless while the group is not replicated.
        percent: how much of a copy is done.
        whole_at: the target is the copy of this moment; None: it is between two. A synchronized target that is not
            asynchronous is the copy of now.
    """

    id: str
    name: str
    volumes: list[Volume]
    state: GroupState
    is_source: bool = True
    percent: int = 100
    whole_at: AwareDatetime | None = None
    asynchronous: bool = False

    @property
    def is_copy_of_now(self) -> bool:
        return self.state is GroupState.SYNCHRONIZED and not self.asynchronous

    @property
    def is_active(self) -> bool:
        """Whether hosts of this side write: the source's, and after a failover the target's."""
        return self.is_source != (self.state is GroupState.FAILED_OVER)


class GroupControl(Protocol):
    """What every dialect can: look at groups, and move and resume them. All calls block and may be repeated.

    Raises:
        Unreachable: it, or its peer where it has to be asked, does not answer.
        AuthenticationRefused, AuthorizationRefused, BadInput: the login, or what the inventory says about the array.
        InvalidState: the array refuses, with its reason; or its job makes no progress.
    """

    name: str

    def check(self) -> list[Finding]:
        """What can be said of an array that answers."""

    def supports(self) -> frozenset[Step]:
        """As the array itself says."""

    def groups(self) -> list[Group]: ...

    def volumes(self, names: Sequence[str]) -> list[Volume]:
        """Raises ``NotFound`` naming the ones that are not there."""

    def fail_over(self, group: Group, watch: Watch, *, force: bool = False) -> None:
        """Make the target's side the active one; the source's side stops first. ``force``: also without its answer,
        and when the target is a copy of an earlier moment. Raises ``Unreachable`` when the source does not answer."""

    def fail_back(self, group: Group, watch: Watch) -> None:
        """Give the source what was written at the target since the failover, and make it the active side again."""

    def reverse(self, group: Group, watch: Watch) -> None:
        """After a failover: mirror from here to the old source; returns once the copy is under way."""

    def resume(self, group: Group, watch: Watch) -> None:
        """Make the target equal again; returns once the copy is under way."""


@runtime_checkable
class Array(GroupControl, Protocol):
    """One site's array with all that protecting machines on it needs. Thread-safe."""

    def free_space(self) -> int:
        """Bytes that are free in the pool that replicas of other sites are made in."""

    def create_group(self, name: str, volumes: Sequence[Volume]) -> Group: ...

    def mirror(
        self, group: Group, peer: str, pool: str, *, asynchronous: bool, hold_writes: bool, watch: Watch
    ) -> None:
        """Begin to mirror to new volumes in ``pool`` of the array ``peer``; returns once the copy is under way.

        ``hold_writes``: writes of hosts wait while the other array cannot be written. ``asynchronous``: they never do,
        and reach it later, in their order."""

    def split(self, group: Group) -> None:
        """End the mirroring, the target stays as it is; also when the other array does not answer."""

    def detach(self, group: Group) -> None:
        """Forget the relationship; both sides' volumes stay."""

    def clone(self, volumes: Sequence[Volume], names: Sequence[str]) -> AwareDatetime:
        """Copies of all volumes as of one moment, which is returned."""

    def expose(self, volumes: Sequence[Volume], hosts: Sequence[str]) -> None: ...

    def hide(self, volumes: Sequence[Volume], hosts: Sequence[str]) -> None: ...

    def delete_group(self, group: Group) -> None:
        """The volumes stay. Not there: nothing happens."""

    def delete_volumes(self, names: Sequence[str]) -> None:
        """Not there: nothing happens."""


def able_to(step: str, array: GroupControl) -> Array:
    """The array as one that leeward can do more with than move groups. What asks for that has been refused before by
    :meth:`GroupControl.supports`. Raises ``InvalidState``."""
    if isinstance(array, Array):
        return array
    raise InvalidState(
        f"leeward cannot {step} in the array's language",
        where=f"array {array.name}",
        remedy="do it with the array's own tools",
    )


class SanFabric(Hypervisor, Protocol):
    """A fabric whose hosts can run machines from volumes of an array."""

    def register_on_volumes(
        self, machine: str, like: str, volumes: dict[str, str], network: str, made_from: str
    ) -> MachineDescription:
        """Register a powered-off machine whose disks are volumes (``disk name → volume name``), after a rescan.

        ``like`` and errors as in :meth:`adapters.ports.StreamFabric.create_from_replica`. :meth:`Hypervisor.remove`
        unregisters it; the volumes stay."""

    def made_from(self, machine: str) -> str | None:
        """The recovery point that a registered machine was made from. Raises ``NotFound``."""
