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
    MIRROR_TOGETHER = "mirror several volumes as a group"
    CLONE = "clone volumes"
    FAIL_OVER = "fail over"
    FAIL_BACK = "fail back"
    REVERSE = "reverse roles"
    RESUME = "resume"
    SPLIT = "split"
    DETACH = "detach"


class Volume(Value):
    """``size`` is in bytes."""

    id: str
    name: str
    size: int


class Group(Value):
    """A replication group as one of its two arrays tells it.

    Attributes:
        name: empty: a mirrored volume of an array that mirrors each one for itself, and is in no group.
        is_source: the direction of the relationship; meaningless while the group is not replicated.
        percent: how much of a copy is done; None: the array does not tell.
        doing: the array's own word for what goes on with it, or what it asks for; empty: nothing beside the state.
        changing: an operation is going on after which the state will be another one: nobody may act by this one.
        whole_at: the target is the copy of this moment; None: it is between two. A synchronized target that is not
            asynchronous is the copy of now, whatever is told here.
    """

    id: str
    name: str
    volumes: list[Volume]
    state: GroupState
    is_source: bool = True
    percent: int | None = 100
    doing: str = ""
    changing: bool = False
    whole_at: AwareDatetime | None = None
    asynchronous: bool = False

    @property
    def is_copy_of_now(self) -> bool:
        return self.state is GroupState.SYNCHRONIZED and not self.asynchronous

    @property
    def is_whole(self) -> bool:
        return self.is_copy_of_now or self.whole_at is not None

    @property
    def is_active(self) -> bool:
        """Whether hosts of this side write: the source's, and after a failover the target's."""
        return self.is_source != (self.state is GroupState.FAILED_OVER)


class GroupControl(Protocol):
    """What every dialect can: look at groups, and move and resume them. All calls block and may be repeated.

    Raises:
        Unreachable: it does not answer.
        PeerUnreachable: its peer, which has to be asked, does not answer.
        AuthenticationRefused, AuthorizationRefused, BadInput: the login, or what the inventory says about the array.
        InvalidState: the array refuses, with its reason; or its job makes no progress.
    """

    name: str

    def check(self, *, asynchronous: bool = False) -> list[Finding]:
        """What can be said of an array that answers."""

    def supports(self, *, asynchronous: bool = False) -> frozenset[Step]:
        """As the array itself says, of groups that are mirrored so."""

    def groups(self, name: str | None = None) -> list[Group]:
        """All of the array, or only those of that name, for which fewer questions are asked, and those without one."""

    def volumes(self, names: Sequence[str]) -> list[Volume]:
        """Raises ``NotFound`` naming the ones that are not there, ``InvalidState`` when several have one name."""

    def pools_of(self, volumes: Sequence[Volume]) -> dict[str, list[str]]:
        """By volume's name, the pools that it is allocated from, as the inventory names them; none: it is not told."""

    def fail_over(self, group: Group, watch: Watch, *, force: bool = False) -> None:
        """Make the target's side the active one; the source's side stops first. ``force``: also without its answer,
        and when the target is a copy of an earlier moment. Raises ``PeerUnreachable`` when the source does not
        answer: only the array knows that, so no other silence says it."""

    def fail_back(self, group: Group, watch: Watch) -> None:
        """Give the source what was written at the target since the failover, and make it the active side again."""

    def reverse(self, group: Group, watch: Watch) -> None:
        """After a failover: mirror from here to the old source; returns once the copy is under way."""

    def resume(self, group: Group, watch: Watch) -> None:
        """Make the target equal again; returns once the copy is under way."""


@runtime_checkable
class Array(GroupControl, Protocol):
    """One site's array with all that protecting machines on it needs. Thread-safe."""

    def free_space(self, pool: str) -> int:
        """Bytes that are free in the pool. Raises ``NotFound`` naming those that there are."""

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

    def clone(self, volumes: Sequence[Volume], names: Sequence[str]) -> AwareDatetime | None:
        """Copies of all volumes as of one moment, which is returned; None: it is not told."""

    def expose(self, volumes: Sequence[Volume], hosts: Sequence[str]) -> None: ...

    def hide(self, volumes: Sequence[Volume], hosts: Sequence[str]) -> None: ...

    def empty_group(self, group: Group) -> None:
        """Take its volumes, as ``group`` tells them, out of it; both stay. It must not be replicated."""

    def delete_group(self, group: Group) -> None:
        """The volumes stay. Not there: nothing happens."""

    def delete_volumes(self, names: Sequence[str]) -> None:
        """The site's hosts see them no more. Not there: nothing happens."""


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
