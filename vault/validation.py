"""Turn what pydantic finds wrong with a file into sentences an operator can act on, each with its place."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from vault.errors import BadInput, InputErrors
from vault.yamlsource import YamlSource, shorten

ModelT = TypeVar("ModelT", bound=BaseModel)

MAX_ERRORS = 100
"""More complaints about one file help nobody, and looking for suggestions costs time."""
_SENSITIVE = ("credential", "secret", "password", "token", "environment", "_key", "pki", "url", "header", "body")
"""Parts of names of keys whose values, unlike the keys, are never quoted: they are secrets, or have one in them, or
somebody has put one where the reference to it belongs."""


@dataclass(slots=True)
class Loaded(Generic[ModelT]):
    """A model and the file it came from, so that later checks can name places in it."""

    model: ModelT
    source: YamlSource


def validate(source: YamlSource, model: type[ModelT]) -> Loaded[ModelT]:
    """Make the model of what was read.

    Raises:
        InputErrors: with everything that does not fit the model, each at its place.
        BadInput: when the file is no mapping at all.
    """
    if not isinstance(source.data, dict):
        raise source.error((), "the file must be a mapping of keys to values", remedy="begin it with 'key: value'")
    try:
        return Loaded(model.model_validate(source.data), source)
    except ValidationError as error:
        details = error.errors(include_url=False)
    raise in_order_of_the_file(_sentence(source, model, detail) for detail in details[:MAX_ERRORS])


def validate_beside(source: YamlSource, model: type[ModelT], others: list[BadInput]) -> Loaded[ModelT]:
    """As :func:`validate`; what does not fit the model is told together with these other errors of the file."""
    try:
        return validate(source, model)
    except InputErrors as error:
        if not others:
            raise
        found = error.errors
    raise in_order_of_the_file([*found, *others])


def in_order_of_the_file(errors: Iterable[BadInput]) -> InputErrors:
    """The complaints about one file and those it includes (at most :data:`MAX_ERRORS`), file by file, the first line
    first, none twice."""
    unique = {str(error): error for error in islice(errors, MAX_ERRORS)}
    files: dict[str, int] = {}

    def place(error: BadInput) -> tuple[int, ...]:
        file, *position = error.where.rsplit(":", 2)
        return (files.setdefault(file, len(files)), *(int(part) for part in position if part.isdigit()))

    return InputErrors(sorted(unique.values(), key=place))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean 'gold'?``, or what there is to choose from, as a remedy."""
    names = sorted(known)
    close = difflib.get_close_matches(word[:100], names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    if not names:
        return ""
    listed = ", ".join(f"'{name}'" for name in names[:14])
    return f"known are {listed}" + (", …" if len(names) > 14 else "")


@dataclass(slots=True)
class _Complaint:
    """One finding of pydantic, with what its sentence needs."""

    detail: ErrorDetails
    model: type[BaseModel]
    name: str
    """The key that is wrong or missing."""
    subject: str
    """The value that is wrong: ``'timeout'`` or ``entry 2 of 'machines'``."""
    is_key: bool

    @property
    def value(self) -> str:
        return _quoted(self.detail["input"], () if self.is_key else self.detail["loc"])

    @property
    def context(self) -> dict[str, Any]:
        return self.detail.get("ctx", {})


def _sentence(source: YamlSource, model: type[BaseModel], detail: ErrorDetails) -> BadInput:
    loc = detail["loc"]
    path = [part for part in loc if part != "[key]"]
    is_key = detail["type"] == "extra_forbidden" or loc[-1:] == ("[key]",)
    name = shorten(str(path[-1])) if path else ""
    complaint = _Complaint(detail, model, name, _subject(source, path), is_key)
    what, remedy = _EXPLANATIONS.get(detail["type"], _explain_type)(complaint)
    return source.error(path, what, remedy=remedy, key=is_key)


def _subject(source: YamlSource, path: list[str | int]) -> str:
    """What the file calls the place; pydantic's path also has the names of types it tried."""
    node, real = source.root, []
    for part in path:
        child = node.children.get(part)
        if child is not None:
            node = child
            real.append(part)
    if not real:
        return "the file"
    if isinstance(real[-1], int):
        listed = next((f" of '{shorten(part)}'" for part in reversed(real) if isinstance(part, str)), "")
        return f"entry {real[-1] + 1}{listed}"
    return f"'{shorten(real[-1])}'"


def _explain_unknown_key(complaint: _Complaint) -> tuple[str, str]:
    known = [key for found in _models_at(complaint.model, complaint.detail["loc"][:-1]) for key in _keys(found)]
    return f"unknown key '{complaint.name}'", did_you_mean(complaint.name, known)


def _explain_missing(complaint: _Complaint) -> tuple[str, str]:
    return f"'{complaint.name}' is missing", f"add '{complaint.name}: …' here"


def _explain_choice(complaint: _Complaint) -> tuple[str, str]:
    expected = str(complaint.context.get("expected", ""))
    choices = [choice.strip("'") for choice in expected.replace(" or ", ", ").split(", ")]
    what = f"{complaint.value} is not allowed for {complaint.subject}"
    return what, did_you_mean(str(complaint.detail["input"]), choices)


def _explain_pattern(complaint: _Complaint) -> tuple[str, str]:
    pattern = str(complaint.context["pattern"])
    what, remedy = _PATTERNS.get(pattern, ("does not have the right form", f"it must match {pattern}"))
    return f"{complaint.value} {what}" if complaint.is_key else f"{complaint.subject}: {complaint.value} {what}", remedy


def _explain_own(complaint: _Complaint) -> tuple[str, str]:
    """Our own validators write ``what; remedy``."""
    what, _, remedy = str(complaint.context["error"]).partition("; ")
    return what, remedy


def _explain_tag(complaint: _Complaint) -> tuple[str, str]:
    what, _, remedy = complaint.detail["msg"].partition("; ")
    tags = [tag.split(":")[-1] for found in _tags_at(complaint.model, complaint.detail["loc"]) for tag in found]
    given = complaint.detail["input"]
    if isinstance(given, dict):
        for key in given:
            close = difflib.get_close_matches(str(key)[:100], tags, n=1)
            if close:
                return what, f"'{shorten(str(key))}': did you mean '{close[0]}'?"
    return what, remedy


def _explain_length(complaint: _Complaint) -> tuple[str, str]:
    limits = complaint.context
    if "max_length" in limits:
        return f"{complaint.subject} is too long", f"use at most {limits['max_length']}"
    return f"{complaint.subject} must not be empty", "add something, or remove the key"


def _explain_type(complaint: _Complaint) -> tuple[str, str]:
    for sign, what, remedy in _TYPES:
        if complaint.detail["type"].startswith(sign):
            return f"{complaint.subject} must be {what}, not {complaint.value}", remedy
    message = complaint.detail["msg"]
    return f"{complaint.subject}: {message[:1].lower()}{message[1:]}, not {complaint.value}", ""


_EXPLANATIONS = {
    "extra_forbidden": _explain_unknown_key,
    "missing": _explain_missing,
    "literal_error": _explain_choice,
    "enum": _explain_choice,
    "string_pattern_mismatch": _explain_pattern,
    "value_error": _explain_own,
    "union_tag_not_found": _explain_tag,
    "unknown_step": _explain_tag,
    "too_short": _explain_length,
    "too_long": _explain_length,
    "string_too_short": _explain_length,
    "string_too_long": _explain_length,
}

_NAME = (
    "is not a valid name",
    "use letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 63 characters",
)
_PATTERNS = {
    r"^https?://[^\s/]+": ("is not an address", "begin it with http:// or https://, then the host"),
    r"^https://[^/?#\s]+/?$": ("is not a service's address", "write it as 'https://HOST:PORT'"),
    r"^https://[^/?#\s]+(/[^?#\s]*)?$": ("is not an account's address", "write it as 'https://HOST', without a '?'"),
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$": _NAME,
    r"^[A-Za-z_][A-Za-z0-9_]{0,62}$": (
        "is not a variable's name",
        "use letters, digits and '_', not beginning with a digit, at most 63 characters",
    ),
    r"^[a-z0-9-]+$": ("is not a valid name", "use small letters, digits and '-'"),
    r"^[^@*\s].*$": ("is nobody's name", "a group names people: no other group, and no '*'"),
    r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$": ("is not a header's name", "use letters, digits and '-'"),
    r"^[^/]+/[^/]+$": ("does not name a network", "write it as 'site/network'"),
    r"^[^/]+/.+$": ("does not name a cloud", "write it as 'site/cloud'"),
    r"^[^/]+/[^/].*$": ("does not name a storage pool", "write it as 'site/pool', the pool by its InstanceID or Id"),
    r"^(env|file):.+$": (
        "is not a reference to a secret",
        "write 'env:NAME' or 'file:PATH', and keep the secret itself out of this file",
    ),
    r"^([01]\d|2[0-3]):[0-5]\d$": ("is not a time of day", "write it as 'HH:MM' in quotes, like \"18:00\""),
}
_TYPES = (
    ("string_type", "text", "put it in quotes"),
    ("int_", "a whole number", ""),
    ("float_", "a number", ""),
    ("bool_", "true or false", ""),
    ("list_", "a list", "begin each entry with '- '"),
    ("dict_", "a mapping", "write 'key: value' lines below it"),
    ("model_", "a mapping", "write 'key: value' lines below it"),
)


def _quoted(value: Any, loc: tuple[int | str, ...]) -> str:
    """The value for a message, or only its kind where it is large or may be a secret."""
    if any(word in str(part).lower() for part in loc for word in _SENSITIVE):
        return "this value"
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return f"'{shorten(str(value))}'"


def _keys(model: type[BaseModel]) -> Iterator[str]:
    """The keys that a file may use in ``model``."""
    for name, info in model.model_fields.items():
        alias = info.validation_alias or info.alias
        if isinstance(alias, AliasChoices):
            yield str(alias.choices[0])
        elif name != "kind":
            yield alias if isinstance(alias, str) else name


def _models_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """The models that stand at ``loc`` inside ``model``."""
    return [found for annotation in _annotations_at(model, loc) for found in _models_in(annotation)]


def _tags_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[tuple[str, ...]]:
    """The tags of the union that stands at ``loc`` inside ``model``."""
    return [tags for annotation in _annotations_at(model, loc) for _, tags in _alternatives(annotation)]


def _annotations_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[Any]:
    here: list[Any] = [model]
    for part in loc:
        here = [inner for annotation in here for inner in _step_into(annotation, part)]
    return here


def _step_into(annotation: Any, part: int | str) -> Iterator[Any]:
    for plain, tags in _alternatives(annotation):
        if part in tags:
            yield plain
        elif isinstance(plain, type) and issubclass(plain, BaseModel):
            for name, info in plain.model_fields.items():
                alias = info.validation_alias or info.alias
                names = alias.choices if isinstance(alias, AliasChoices) else [alias or name]
                if part in names:
                    yield info.annotation
        elif get_origin(plain) in (list, dict):
            yield get_args(plain)[-1]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    for plain, _ in _alternatives(annotation):
        if isinstance(plain, type) and issubclass(plain, BaseModel):
            yield plain


def _alternatives(annotation: Any, tags: tuple[str, ...] = ()) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """The plain types inside Annotated and unions, with the tags that unions know them by."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        yield from _alternatives(inner, (*tags, *(item.tag for item in metadata if isinstance(item, Tag))))
    elif get_origin(annotation) in (Union, types.UnionType):
        for choice in get_args(annotation):
            yield from _alternatives(choice, tags)
    else:
        yield annotation, tags
