"""Where this process finds its inventory, its data and Temporal."""

from __future__ import annotations

import os
from pathlib import Path

from vault.domain import Value
from vault.errors import BadInput
from workflows.model import Timings

VAULT_VARIABLE = "LEEWARD_VAULT"
DATA_VARIABLE = "LEEWARD_DATA"
BUILD_VARIABLE = "LEEWARD_BUILD"
TIME_SCALE_VARIABLE = "LEEWARD_TIME_SCALE"
DEFAULT_VAULT = Path("leeward.yaml")
DATA_FOLDER = ".leeward"
SHORTEST_HEARTBEAT_S = 4.0
SHORTEST_DECISION_S = 4.0


class Settings(Value):
    """Settings of one process.

    Attributes:
        vault: the inventory file.
        data: leeward's data directory: the embedded engine, the lab, logs, reports.
        time_scale: below 1 shortens the waits between retries and other long times; for the lab.
        build: which build of leeward a control worker is, in Temporal's Worker Versioning; empty: it is not used.
    """

    vault: Path
    data: Path
    time_scale: float = 1.0
    build: str = ""

    @property
    def engine_file(self) -> Path:
        return self.data / "engine.json"

    @property
    def loaded_inventory(self) -> Path:
        """The inventory as it was when the embedded engine started."""
        return self.data / "engine-inventory.yaml"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def reports(self) -> Path:
        return self.data / "reports"

    @property
    def lab_root(self) -> Path:
        return self.data / "lab"

    def timings(self) -> Timings:
        """The product's times, shortened by the time scale; what detects dead workers stays humanly long."""
        usual = Timings()
        if self.time_scale == 1.0:
            return usual
        return Timings(
            time_scale=self.time_scale,
            heartbeat_s=max(SHORTEST_HEARTBEAT_S, usual.heartbeat_s * self.time_scale),
            decision_s=max(SHORTEST_DECISION_S, usual.decision_s * self.time_scale),
            site_answer_s=max(20.0, usual.site_answer_s * self.time_scale),
            shut_down_s=max(10.0, usual.shut_down_s * self.time_scale),
            boot_s=max(30.0, usual.boot_s * self.time_scale),
            old_copy_s=max(1.0, usual.old_copy_s * self.time_scale),
        )

    def environment(self) -> dict[str, str]:
        """For child processes: they find the same vault and data."""
        return {
            VAULT_VARIABLE: str(self.vault.resolve()),
            DATA_VARIABLE: str(self.data.resolve()),
            TIME_SCALE_VARIABLE: repr(self.time_scale),
            BUILD_VARIABLE: self.build,
        }


def load_settings(vault: Path | None = None, data: Path | None = None, time_scale: float | None = None) -> Settings:
    """Options first, then the environment, then ``leeward.yaml`` here and ``.leeward`` beside it.

    Raises:
        BadInput: when the time scale is not a number above 0 and at most 1.
    """
    vault = vault or Path(os.environ.get(VAULT_VARIABLE, DEFAULT_VAULT))
    data = data or Path(os.environ.get(DATA_VARIABLE, vault.resolve().parent / DATA_FOLDER))
    build = os.environ.get(BUILD_VARIABLE, "")
    return Settings(vault=vault, data=data.resolve(), time_scale=_time_scale(time_scale), build=build)


def _time_scale(given: float | None) -> float:
    text = os.environ.get(TIME_SCALE_VARIABLE, "1") if given is None else str(given)
    remedy = "give a number above 0 and at most 1, like 0.01"
    try:
        scale = float(text)
    except ValueError:
        raise BadInput(f"'{text}' is not a time scale", where=TIME_SCALE_VARIABLE, remedy=remedy) from None
    if not 0 < scale <= 1:
        raise BadInput(f"the time scale {text} is out of range", where=TIME_SCALE_VARIABLE, remedy=remedy)
    return scale
