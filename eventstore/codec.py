"""Event data to canonical JSON and back, upcasts of old versions, and the hash of a row. Pure.

The text that `encode` gives is what the log stores and what `row_hash` covers: sorted keys, no spaces,
UTF-8. Nothing is altered on the way: a value that JSON cannot hold as it is (NaN, infinity, a lone
surrogate, a date, a missing value inside a dict) is refused with the event type and the field.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any

import msgspec

from eventstore.errors import InvalidEvent
from eventstore.events import CATALOGUE, Data, UnknownEvent

Upcast = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns the data of one version into the data of the next."""

UPCASTS: dict[tuple[str, int], Upcast] = {}
"""By (type, version it starts from), one step each. Grows only: a released step is never edited."""

HASH_TAG = b"nightshift-row-1"
"""First bytes of what is hashed. Another way of hashing gets another tag."""

_ENCODER = msgspec.json.Encoder(order="sorted")


class Codec:
    """
    Writes and reads the data of the event types in *catalogue*.

    Raises:
        ValueError: When made with upcasts that do not lead, step by step, from version 1 of each type
            to its current one.
    """

    def __init__(self, catalogue: Mapping[str, type[Data]], upcasts: Mapping[tuple[str, int], Upcast]) -> None:
        _check_upcasts(catalogue, upcasts)
        self._catalogue = dict(catalogue)
        self._upcasts = dict(upcasts)
        self._decoders = {(name, cls.VERSION): msgspec.json.Decoder(cls).decode for name, cls in catalogue.items()}

    def encode(self, data: Data) -> str:
        """Write *data* as canonical JSON. Raises `InvalidEvent` for what would not come back as it is."""
        kind = type(data)
        if self._catalogue.get(getattr(kind, "TYPE", "")) is not kind:
            raise InvalidEvent(f"{kind.__name__} is not an event type of the catalogue: only those can be appended")
        try:
            raw = _ENCODER.encode(data)
            back = self._decoders[kind.TYPE, kind.VERSION](raw)
        except (TypeError, ValueError) as error:  # msgspec's own errors and UnicodeEncodeError are ValueErrors
            raise InvalidEvent(f"{kind.TYPE}: {_fault(data) or error}") from error
        # Non-finite floats are written as null. Comparing finds them, and whatever else JSON changed.
        if (b"null" in raw or back != data) and (fault := _fault(data)):
            raise InvalidEvent(f"{kind.TYPE}: {fault}")
        return raw.decode()

    def decode(self, type_: str, version: int, text: str) -> Data | UnknownEvent:
        """
        Read stored data. A type or version not known here becomes `UnknownEvent`.

        Raises:
            InvalidEvent: If the type and version are known but *text* is not their data.
        """
        decoder = self._decoders.get((type_, version))
        try:
            if decoder is not None:
                return decoder(text)
            return self._decode_other(type_, version, text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidEvent(f"{type_} version {version} does not decode ({error})") from error

    def _decode_other(self, type_: str, version: int, text: str) -> Data | UnknownEvent:
        kind = self._catalogue.get(type_)
        if kind is None or not 1 <= version < kind.VERSION:
            return UnknownEvent(raw=text)
        fields = msgspec.json.decode(text, type=dict[str, Any])
        for step in range(version, kind.VERSION):
            fields = self._upcasts[type_, step](fields)
        return msgspec.convert(fields, kind)


def canonical_json(value: object) -> str:
    """
    Write builtin containers and structs as the log does: sorted keys, no spaces, UTF-8. For hashes.

    Unlike `encode` it checks nothing: a NaN comes out as null. Raises `TypeError` for what JSON has no form for.
    """
    return _ENCODER.encode(value).decode()


def _check_upcasts(catalogue: Mapping[str, type[Data]], upcasts: Mapping[tuple[str, int], Upcast]) -> None:
    needed = {(name, version) for name, kind in catalogue.items() for version in range(1, kind.VERSION)}
    for name, version in sorted(needed - upcasts.keys()):
        raise ValueError(f"no upcast for {name} from version {version} to {version + 1}: add it to UPCASTS")
    for name, version in sorted(upcasts.keys() - needed):
        raise ValueError(f"an upcast for {name} from version {version} leads nowhere: no such older version")


def _fault(data: object) -> str:
    """Say which field holds something that JSON would refuse or alter, and what. Empty if none does."""
    for where, leaf in _leaves(data, ""):
        if what := _trouble(leaf):
            return f"field `{where}`: {what}"
    return ""


def _leaves(value: object, where: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            part = getattr(value, name)
            if part is not None:  # an optional field that is left out
                yield from _leaves(part, f"{where}.{name}" if where else name)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            inside = f"{where}.{key}".encode("utf-8", "backslashreplace").decode()
            yield inside, key
            yield from _leaves(part, inside)
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _leaves(part, f"{where}[{index}]")
    else:
        yield where, value


def _trouble(leaf: object) -> str:
    if isinstance(leaf, str):
        return "" if encodable(leaf) else "a lone surrogate, which UTF-8 cannot hold (codec.clean replaces it)"
    if isinstance(leaf, float):
        return "" if math.isfinite(leaf) else f"{leaf} is not a number that JSON can hold, leave the field out"
    if leaf is None:
        return "a null says nothing, leave the key out"
    return "" if isinstance(leaf, int) else f"{type(leaf).__name__} is not a JSON value"


def encodable(text: str) -> bool:
    """Tell whether UTF-8 can hold *text*: false where it has a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def clean(text: str, limit: int) -> str:
    """
    Make text from outside (an agent, Slack, a child process) fit for an event.

    Lone surrogates become U+FFFD, pairs of them the character they stand for. Text of more than *limit*
    characters is cut to *limit*, the last of which is then an ellipsis.
    """
    if not encodable(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"[:limit]


def row_hash(previous_chain: bytes, *columns: str | bytes | int | None) -> bytes:
    """
    Hash a row onto the chain: SHA-256 over `HASH_TAG`, the previous row's 32 bytes, then each column.

    Columns come in the order of the table, without `chain`. A column is its text as stored, in UTF-8 (an
    integer in decimal), behind its length in 4 bytes, big-endian; NULL is the one byte 0xFF, which as the
    first byte of a length would need a column of 4 GB. Bytes are taken as text already encoded.
    """
    parts = [HASH_TAG, previous_chain]
    for column in columns:
        if column is None:
            parts.append(b"\xff")
        else:
            text = column if isinstance(column, bytes) else str(column).encode()
            parts += (len(text).to_bytes(4, "big"), text)
    return sha256(b"".join(parts)).digest()


_CODEC = Codec(CATALOGUE, UPCASTS)
encode = _CODEC.encode
decode = _CODEC.decode
