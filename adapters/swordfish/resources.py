"""Swordfish resources as leeward reads them; what else they carry is left alone.

Names and values: SNIA Swordfish schemas ConsistencyGroup v1, StorageReplicaInfo v1, StoragePool v1, Capacity v1 and
Volume v1; DMTF Redfish schemas
ServiceRoot, Storage and Task v1.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class Resource(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Link(Resource):
    path: str = Field(alias="@odata.id")


class Collection(Resource):
    """``next``: where more members are; a service answers with as many at once as it likes."""

    members: list[Link] = Field(alias="Members")
    next: str | None = Field(default=None, alias="Members@odata.nextLink")


class StoragePool(Resource):
    id: str = Field(alias="Id")


class ProvidingPools(Link):
    """A collection; some services answer with its members, others only with its address."""

    members: list[Link] | None = Field(default=None, alias="Members")


class CapacitySource(Resource):
    """Without an ``id`` it is but a link to one."""

    path: str = Field(default="", alias="@odata.id")
    id: str = Field(default="", alias="Id")
    pools: ProvidingPools | None = Field(default=None, alias="ProvidingPools")


class ServiceRoot(Resource):
    storage: Link = Field(alias="Storage")


class Storage(Resource):
    """A service may have others beside the array, which have no groups."""

    name: str = Field(alias="Name")
    volumes: Link | None = Field(default=None, alias="Volumes")
    consistency_groups: Link | None = Field(default=None, alias="ConsistencyGroups")


class Volume(Resource):
    id: str = Field(alias="Id")
    name: str = Field(alias="Name")
    capacity: int = Field(alias="CapacityBytes")
    sources: list[CapacitySource] = Field(default=[], alias="CapacitySources")


class ReplicaState(StrEnum):
    INITIALIZED = "Initialized"
    UNSYNCHRONIZED = "Unsynchronized"
    SYNCHRONIZED = "Synchronized"
    BROKEN = "Broken"
    FRACTURED = "Fractured"
    SPLIT = "Split"
    INACTIVE = "Inactive"
    SUSPENDED = "Suspended"
    FAILEDOVER = "Failedover"
    PREPARED = "Prepared"
    ABORTED = "Aborted"
    SKEWED = "Skewed"
    MIXED = "Mixed"


class ReplicaRole(StrEnum):
    SOURCE = "Source"
    TARGET = "Target"


class ReplicaMode(StrEnum):
    ACTIVE = "Active"
    SYNCHRONOUS = "Synchronous"
    ASYNCHRONOUS = "Asynchronous"
    ADAPTIVE = "Adaptive"


class ReplicaInfo(Resource):
    """``when_synchronized``: of which moment a target is; missing: it is between two.

    A value that is none of :class:`ReplicaState` is read too: a later schema may have more, and one group must not make
    all others unreadable."""

    state: str = Field(alias="ReplicaState")
    role: ReplicaRole = Field(alias="ReplicaRole")
    mode: str | None = Field(default=None, alias="ReplicaUpdateMode")
    progress: str | None = Field(default=None, alias="ReplicaProgressStatus")
    percent: int | None = Field(default=None, alias="PercentSynced")
    when_synchronized: AwareDatetime | None = Field(default=None, alias="WhenSynchronized")


class ActionTarget(Resource):
    target: str


class Actions(Resource):
    reverse: ActionTarget | None = Field(default=None, alias="#ConsistencyGroup.ReverseReplicationRelationship")
    resume: ActionTarget | None = Field(default=None, alias="#ConsistencyGroup.ResumeReplication")


class ConsistencyGroup(Resource):
    id: str = Field(alias="Id")
    name: str = Field(alias="Name")
    volumes: list[Link] = Field(alias="Volumes")
    replica: ReplicaInfo | None = Field(default=None, alias="ReplicaInfo")
    targets: list[Link] = Field(default=[], alias="ReplicaTargets")
    actions: Actions = Field(default=Actions(), alias="Actions")


class TaskState(StrEnum):
    """Those in which a task is over; in all others it goes on, or is expected to."""

    COMPLETED = "Completed"
    EXCEPTION = "Exception"
    KILLED = "Killed"
    CANCELLED = "Cancelled"


class Message(Resource):
    """``resolution``: what the service advises; some say "None" where they know nothing."""

    id: str = Field(default="", alias="MessageId")
    message: str = Field(default="", alias="Message")
    resolution: str = Field(default="", alias="Resolution")

    @property
    def advice(self) -> str:
        return self.resolution.rstrip(".") if self.resolution.strip(". ").lower() not in ("", "none") else ""


class Task(Resource):
    id: str = Field(alias="Id")
    state: str = Field(alias="TaskState")
    percent: int | None = Field(default=None, alias="PercentComplete")
    messages: list[Message] = Field(default=[], alias="Messages")


class Problem(Resource):
    """The body of an error: ``{"error": {…}}``. ``message`` often only says to read ``details``."""

    code: str = ""
    message: str = ""
    details: list[Message] = Field(default=[], alias="@Message.ExtendedInfo")


class ProblemAnswer(Resource):
    error: Problem
