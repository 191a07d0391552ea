"""The file `meta`: two slots, written in place, since that needs no room. Together the metas are the catalogue.

A slot is one frame of exactly `SLOT_BYTES`, a JSON object padded with blanks, so no bit of the file is unchecked. An update
writes the first slot and syncs, then the second and syncs, and is acknowledged after that. A crash between leaves one whole
slot at least: the old one, or the first with the new.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from outlast.streams._format.frames import (
    FIRST_VERSION,
    PREFIX_BYTES,
    VERSION,
    FrameError,
    FrameKind,
    decode_frame,
    encode_frame,
)
from outlast.streams._model import Retention, StreamOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

SLOT_BYTES: Final = 4096
META_BYTES: Final = 2 * SLOT_BYTES
OLDER: Final = "it is older than the other"
"""The fault of a slot that is whole. Of the second one it is no damage: a crash came between the two writes of an update."""


@dataclass(frozen=True, slots=True)
class Meta:
    """The entry of one stream in the catalogue. `number` counts its updates."""

    id: int
    name: str
    created_us: int
    options: StreamOptions = field(default_factory=StreamOptions)
    oldest: int = 0
    is_closed: bool = False
    number: int = 0
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Slots:
    """Both slots of a `meta` as they were read. `meta` is what holds; `faults` says of each slot what is wrong, "" if nothing."""

    meta: Meta
    faults: tuple[str, str]

    @property
    def is_healthy(self) -> bool:
        """Whether both slots say the same. If not, writing them again mends it."""
        return self.faults == ("", "")


def encode_meta(meta: Meta) -> bytes:
    """Return one slot. Raises `ValueError` when the description is too long for it."""
    body = json.dumps(describe(meta), ensure_ascii=False, separators=(",", ":")).encode()
    room = SLOT_BYTES - PREFIX_BYTES
    if len(body) > room:
        msg = f"the description of stream {meta.name!r} has {len(body)} bytes; at most {room} fit"
        raise ValueError(msg)
    return encode_frame(FrameKind.META, body.ljust(room), version=version_of(meta))


def decode_slots(data: bytes) -> Slots:
    """Return what both slots say: the whole one with the higher number holds, or the first.

    Raises `FrameError` when neither is whole, and `NewerFormatError` when one is of a newer format.
    """
    found: list[Meta | None] = []
    faults: list[str] = []
    for at in (0, SLOT_BYTES):
        try:
            found.append(_decode_slot(data[at : at + SLOT_BYTES]))
            faults.append("")
        except FrameError as error:
            found.append(None)
            faults.append(error.reason)
    first, second = found
    if first is None and second is None:
        reason = f"neither slot of it is whole: {faults[0]}; {faults[1]}"
        raise FrameError(reason)
    if first is None or (second is not None and second.number > first.number):
        faults[0] = faults[0] or OLDER
        meta = second
    else:
        if second is not None and second != first:
            faults[1] = OLDER
        meta = first
    assert meta is not None  # noqa: S101  one of the two is whole
    if len(data) != META_BYTES:
        faults[1] = faults[1] or f"the file has {len(data)} bytes and not {META_BYTES}"
    return Slots(meta, (faults[0], faults[1]))


def _decode_slot(slot: bytes) -> Meta:
    body = decode_frame(slot, FrameKind.META)
    if len(slot) != SLOT_BYTES or len(body) != SLOT_BYTES - PREFIX_BYTES:
        reason = f"a slot of {len(body) + PREFIX_BYTES} bytes"
        raise FrameError(reason)
    try:
        described = json.loads(body)
    except ValueError as error:
        reason = f"a slot is no JSON: {error}"
        raise FrameError(reason) from error
    return parse_description(described)


def version_of(meta: Meta) -> int:
    """Return the version of a frame that has this entry: one that ignored its labels would lose them with its next update."""
    return VERSION if meta.labels else FIRST_VERSION


def describe(meta: Meta) -> dict[str, Any]:
    """Return a stream's entry as JSON. The header of each segment has it too, so a lost `meta` can be made again."""
    described = dataclasses.asdict(meta)
    described["id"] = f"{meta.id:016x}"
    if not meta.labels:
        del described["labels"]
    return described


def parse_description(described: dict[str, Any]) -> Meta:
    """Return the entry that `describe` described; names that it does not know are ignored. Raises `FrameError`."""
    try:
        options = dict(described["options"])
        retention = Retention(**_known(Retention, options.pop("retention")))
        return Meta(
            int(described["id"], 16),
            str(described["name"]),
            int(described["created_us"]),
            StreamOptions(**_known(StreamOptions, options), retention=retention),
            int(described["oldest"]),
            bool(described["is_closed"]),
            int(described["number"]),
            {str(key): str(value) for key, value in described.get("labels", {}).items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"the description of a stream is none: {error}"
        raise FrameError(reason) from error


def _known(kind: type[Retention | StreamOptions], described: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a later version of the same format may have added: an option that it may do without."""
    names = {each.name for each in dataclasses.fields(kind)}
    return {name: value for name, value in described.items() if name in names}
