"""The reports folder: ``<data>/reports/<plan>/<run id>.json`` and ``.html``, each signed (format: docs/formats.md)."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from reports.model import Report, StageRecord
from reports.signing import PUBLIC_FILE, Signature, canonical, own_key, sign, trusted_keys, verify, write_whole
from vault.errors import BadInput, Damaged, LeewardError, NotFound

FORMAT = "leeward-report"
VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HTML_SIGNATURE = re.compile(rb"\n<!-- leeward-signature (\{[^\n]*\}) -->\n\Z")
_STAGES = TypeAdapter(list[StageRecord])


class Saved(NamedTuple):
    json: Path
    html: Path


class Verified(NamedTuple):
    """A report that is what its writer signed. ``trusted_by`` is where the key that says so was found."""

    signature: Signature
    trusted_by: str


class ReportStore:
    """One reports folder. All calls raise ``OSError`` where the file system fails."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # -- writing -------------------------------------------------------------------------------------------------

    def save(self, report: Report) -> Saved:
        """Sign and write both files; an earlier report of the same run is replaced.

        Raises:
            BadInput: the plan's or run's name is not safe as a file name, or the key is not a key.
        """
        from reports.page import report_page

        saved = self.paths(report.run.plan, report.run.run_id)
        saved.json.parent.mkdir(parents=True, exist_ok=True)
        key, signer = own_key(self.root), f"{getpass.getuser()}@{socket.gethostname()}"
        body = {"format": FORMAT, "version": VERSION, "report": report.model_dump(mode="json")}
        signature = sign(canonical(body), key, signer)
        document = {**body, "signature": signature.model_dump(mode="json")}
        write_whole(saved.json, json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n")
        page = report_page(report).encode()
        write_whole(saved.html, page + _html_signature(sign(page, key, signer)))
        return saved

    def keep_part(self, plan: str, run_id: str, number: int, stages: list[StageRecord]) -> None:
        """Keep some stages of a run that is too large to come in one piece; the same part may come again."""
        folder = self._parts(plan, run_id)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"{number}.json", _STAGES.dump_json(stages))

    def kept_stages(self, plan: str, run_id: str, parts: int) -> list[StageRecord]:
        """The stages from all parts in their order; a stage that was cut is whole again.

        Raises:
            NotFound: a part is not here.
        """
        stages: dict[str, StageRecord] = {}
        for number in range(parts):
            path = self._parts(plan, run_id) / f"{number}.json"
            if not path.exists():
                raise NotFound(
                    f"part {number + 1} of {parts} of the run's facts is missing",
                    where=str(path),
                    remedy="let all control workers share one data directory",
                )
            for stage in _STAGES.validate_json(path.read_bytes()):
                earlier = stages.get(stage.id)
                steps = [*earlier.steps, *stage.steps] if earlier else stage.steps
                stages[stage.id] = stage.model_copy(update={"steps": steps})
        return list(stages.values())

    def drop_parts(self, plan: str, run_id: str) -> None:
        shutil.rmtree(self._parts(plan, run_id), ignore_errors=True)

    # -- reading -------------------------------------------------------------------------------------------------

    def paths(self, plan: str, run_id: str) -> Saved:
        folder = self.root / _safe(plan)
        return Saved(folder / f"{_safe(run_id)}.json", folder / f"{_safe(run_id)}.html")

    def load(self, plan: str, run_id: str | None = None) -> Report:
        """A run's report; without ``run_id`` the newest one of the plan.

        Raises:
            NotFound: there is none.
            Damaged: it cannot be read.
        """
        if run_id is None:
            reports = [report for report in self.reports(plan) if isinstance(report, Report)]
            if reports:
                return reports[-1]
        else:
            path = self.paths(plan, run_id).json
            if path.is_file():
                return read_report(path)
        known = sorted(path.stem for path in (self.root / _safe(plan)).glob("*.json"))[-5:]
        raise NotFound(
            f"no report of {f'run {run_id} of ' if run_id else ''}plan '{plan}'",
            where=str(self.root),
            remedy=f"there are: {', '.join(known)}" if known else "see what there is: leeward report list",
        )

    def files_of(self, plan: str, run_id: str) -> Saved:
        """Both files of a run's report.

        Raises:
            NotFound: there is none.
            Damaged: it cannot be read, or is another run's.
        """
        run, saved = self.load(plan, run_id).run, self.paths(plan, run_id)
        if (run.plan, run.run_id) != (plan, run_id):
            raise Damaged(
                f"the file holds the report of run {run.run_id} of plan '{run.plan}'",
                where=str(saved.json),
                remedy="get the original as leeward wrote it",
            )
        return saved

    def reports(self, plan: str | None = None) -> Iterator[Report | LeewardError]:
        """Every report, by plan, the oldest first; one that cannot be read comes as the error that says why."""
        folders = [self.root / _safe(plan)] if plan else sorted(self.root.glob("*"))
        for folder in folders:
            found: list[Report] = []
            for path in sorted(folder.glob("*.json")):
                try:
                    found.append(read_report(path))
                except LeewardError as error:
                    yield error
            yield from sorted(found, key=lambda report: report.run.started)

    def export(self, plan: str, run_id: str, folder: Path) -> list[Path]:
        """Copy a report's two files, and the public key that they can be verified with; what is there is replaced.

        Raises ``NotFound``."""
        saved = self.paths(plan, run_id)
        sources = {path: f"{plan}-{path.name}" for path in saved} | {self.root / PUBLIC_FILE: PUBLIC_FILE}
        contents = {name: _read(path) for path, name in sources.items()}
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_whole(folder / name, content, 0o644)
        return [folder / name for name in contents]

    def _parts(self, plan: str, run_id: str) -> Path:
        return self.root / _safe(plan) / f"{_safe(run_id)}.parts"


def read_report(path: Path) -> Report:
    """The report in a JSON file; its signature is for :func:`verify_report`.

    Raises:
        NotFound, Damaged, BadInput: it is not there, not whole, or not a report that this version reads.
    """
    document = _document(path, _read(path))
    try:
        return Report.model_validate(document["report"])
    except (KeyError, ValidationError) as error:
        raise Damaged("the report lacks something, or has too much", where=str(path)) from error


def verify_report(path: Path, reports_folder: Path, keys: list[Path]) -> Verified:
    """Whether a report (JSON or HTML) is what its writer signed.

    Args:
        reports_folder: its own key and those in its folder ``trusted`` count.
        keys: further public keys that count.

    Raises:
        Damaged: changed after it was signed, or not signed at all.
        NotTrusted: signed with a key that does not count here.
        NotFound, BadInput: no such file, or not a report.
    """
    raw = _read(path)
    content, signature = _signed_html(path, raw) if raw.lstrip()[:1] == b"<" else _signed_json(path, raw)
    return Verified(signature, verify(content, signature, trusted_keys(reports_folder, keys), str(path)))


def _signed_json(path: Path, raw: bytes) -> tuple[bytes, Signature]:
    document = _document(path, raw)
    signature = document.pop("signature", None)
    if signature is None:
        raise _unsigned(path)
    try:
        return canonical(document), _signature(path, signature)
    except (ValueError, RecursionError) as error:
        raise Damaged("the report has values that leeward never writes", where=str(path)) from error


def _signed_html(path: Path, raw: bytes) -> tuple[bytes, Signature]:
    found = _HTML_SIGNATURE.search(raw)
    if found is None:
        raise _unsigned(path)
    try:
        signature = json.loads(found[1])
    except ValueError as error:
        raise Damaged("the signature cannot be read", where=str(path), remedy="get the original") from error
    return raw[: found.start()], _signature(path, signature)


def _html_signature(signature: Signature) -> bytes:
    # Two hyphens would end an HTML comment.
    text = canonical(signature.model_dump(mode="json")).decode().replace("--", "-\\u002d").replace(">", "\\u003e")
    return f"\n<!-- leeward-signature {text} -->\n".encode()


def _signature(path: Path, value: Any) -> Signature:
    try:
        return Signature.model_validate(value)
    except ValidationError as error:
        raise Damaged("the signature is not one that leeward writes", where=str(path)) from error


def _unsigned(path: Path) -> Damaged:
    return Damaged("the file carries no signature", where=str(path), remedy="get the original as leeward wrote it")


def _document(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Damaged("the report is not whole JSON", where=str(path), remedy="get the original") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BadInput("this is not a report of a plan run", where=str(path), remedy="name a file that leeward wrote")
    if document.get("version") != VERSION:
        raise BadInput(
            f"the report has format version {document.get('version')!r}, this leeward reads {VERSION}",
            where=str(path),
            remedy="use the leeward that wrote it, or a newer one",
        )
    return document


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFound(
            f"the report cannot be read: {os.strerror(error.errno or 0)}",
            where=str(path),
            remedy="name its file; leeward report export PLAN writes the newest one's here",
        ) from error


def _safe(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"'{name[:80]}' cannot be part of a report's file name", remedy="use letters, digits, '.', '_', '-'"
        )
    return name
