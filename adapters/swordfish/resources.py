"""Swordfish resources as leeward reads them; what else they carry is left alone.

Names and values: SNIA Swordfish schemas ConsistencyGroup v1, StorageReplicaInfo v1 and Volume v1; DMTF Redfish schemas
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
    members: list[Link] = Field(alias="Members")


class ServiceRoot(Resource):
    storage: Link = Field(alias="Storage")


class Storage(Resource):
    name: str = Field(alias="Name")
    volumes: Link = Field(alias="Volumes")
    consistency_groups: Link = Field(alias="ConsistencyGroups")


class Volume(Resource):
    id: str = Field(alias="Id")
    name: str = Field(alias="Name")
    capacity: int = Field(alias="CapacityBytes")


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
    """``when_synchronized``: of which moment a target is; missing: it is between two."""

    state: ReplicaState = Field(alias="ReplicaState")
    role: ReplicaRole = Field(alias="ReplicaRole")
    mode: ReplicaMode = Field(default=ReplicaMode.SYNCHRONOUS, alias="ReplicaUpdateMode")
    percent: int = Field(default=0, alias="PercentSynced")
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
    NEW = "New"
    STARTING = "Starting"
    RUNNING = "Running"
    PENDING = "Pending"
    COMPLETED = "Completed"
    EXCEPTION = "Exception"
    KILLED = "Killed"
    CANCELLED = "Cancelled"


class Message(Resource):
    id: str = Field(default="", alias="MessageId")
    message: str = Field(default="", alias="Message")


class Task(Resource):
    id: str = Field(alias="Id")
    state: TaskState = Field(alias="TaskState")
    percent: int = Field(default=0, alias="PercentComplete")
    messages: list[Message] = Field(default=[], alias="Messages")


class Problem(Resource):
    """The body of an error: ``{"error": {…}}``."""

    code: str
    message: str


class ProblemAnswer(Resource):
    error: Problem
