"""Why an array does not do what it is asked: a published return value, and words."""

from __future__ import annotations

from adapters.smis.values import ReturnValue


class ArrayRefusal(Exception):
    def __init__(self, what: str, code: ReturnValue = ReturnValue.FAILED) -> None:
        super().__init__(what)
        self.what = what
        self.code = code


class LinkDown(ArrayRefusal):
    """The other array does not answer."""

    def __init__(self, what: str) -> None:
        super().__init__(what, ReturnValue.TIMEOUT)


class WriteProtected(ArrayRefusal):
    """Hosts may not use the volume here now: the other side of its group is the active one."""
