"""The target's device-mapper table line, parsed in every documented spelling and printed.

Activation of the target formats whatever it is given when the magic does not match, even
through a read-only table, so :data:`ACTIVATION_WARNING` goes with every line.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field, replace

from zoned_tools.device.opening import is_same_drive
from zoned_tools.device.partition import start_of_view
from zoned_tools.errors import MetadataError, UsageError
from zoned_tools.formats.contract import Settings, TableLine, Target
from zoned_tools.formats.inplace_compress.compressors import WRITABLE, compressor_by_name
from zoned_tools.formats.inplace_compress.layout import BLOCK_SECTORS, SECTOR_BYTES, TARGET_TYPE
from zoned_tools.formats.inplace_compress.open import Volume, open_volume
from zoned_tools.formats.inplace_compress.settings import TABLE_WORDS
from zoned_tools.formats.shared.table_words import require_carried

ACTIVATION_WARNING = (
    "activating this line formats the device, without asking, if the magic of its super block is damaged; "
    "check it first"
)

_WRITEBACK_MAX_SECONDS = 2**31 - 1
_C_NUMBER = re.compile(r"\+?(0[xX][0-9a-fA-F]+|[0-9]+)\Z")


@dataclass(frozen=True, slots=True)
class TableArguments:
    """What a table line asks for; None and empty where it says nothing.

    Attributes:
        device: path or ``MAJOR:MINOR``.
        writeback_seconds: None for writethrough.
        compressor: ``lzo``, ``842`` or empty; only used when a volume is created.
        critical: allocate without sleeping (the device serves swap).
        length_sectors: of the line, None when only arguments were given.
        notes: what the driver would understand otherwise.
    """

    device: str = ""
    writeback_seconds: int | None = None
    mode_given: bool = False
    compressor: str = ""
    critical: bool = False
    length_sectors: int | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def mode(self) -> str:
        """``writethrough`` or ``writeback=N``."""
        return "writethrough" if self.writeback_seconds is None else f"writeback={self.writeback_seconds}"


def parse_table(text: str) -> TableArguments:
    """Parse a table line or only its arguments.

    Accepted: ``0 SECTORS inplacecompress ARGUMENTS``, ``ARGUMENTS``, arguments separated by
    commas with ``=`` or ``:``, the words of the 2016 series (``DEV writeback 5``), and
    what ``dmsetup table`` prints (``8:0 writeback:5 compressor:842 critical:1``).

    Raises:
        UsageError: it cannot be meant, or the driver would understand something dangerous.
    """
    words = text.split()
    length: int | None = None
    if TARGET_TYPE in words[:3]:
        length = _line_length(words[: words.index(TARGET_TYPE)])
        words = words[words.index(TARGET_TYPE) + 1 :]
    if not words:
        raise UsageError("the table line has no arguments", hint="device=PATH[,writethrough|writeback=N]...")
    joined = "".join(words)
    if _is_word_list(words):
        pieces = _pieces_of_words(words)
    else:
        _refuse_inner_blanks(words)
        pieces = joined.split(",")
    found = _parse_pieces(pieces, TableArguments(length_sectors=length))
    if found.mode_given:
        return found
    return replace(
        found, notes=(*found.notes, "without a mode the driver uses writeback=0; writethrough is meant here")
    )


def _line_length(words: list[str]) -> int:
    if len(words) != 2 or words[0] != "0" or not words[1].isdecimal() or len(words[1]) > 19:
        raise UsageError(f"a table line begins with '0 SECTORS {TARGET_TYPE}'")
    length = int(words[1])
    if length == 0 or length % BLOCK_SECTORS:
        raise UsageError(
            f"a length of {length} sectors is not a multiple of {BLOCK_SECTORS}",
            hint="the driver would format the device all the same and only then refuse the line",
        )
    return length


def _is_word_list(words: list[str]) -> bool:
    """Whether the arguments are words behind a device, not pieces between commas."""
    return (
        "," not in "".join(words)
        and not words[0].startswith(("device=", "device:"))
        and (len(words) > 1 or "/" in words[0] or _is_device_number(words[0]))
    )


def _is_device_number(word: str) -> bool:
    return re.fullmatch(r"[0-9]+:[0-9]+", word) is not None


def _refuse_inner_blanks(words: list[str]) -> None:
    for before, after in itertools.pairwise(words):
        if not before.endswith(",") and not after.startswith(","):
            raise UsageError(
                f"blank between {before!r} and {after!r} in the table line",
                hint="the driver joins its arguments without separators; put commas between them",
            )


def _pieces_of_words(words: list[str]) -> list[str]:
    pieces = [f"device={words[0]}"]
    rest = iter(words[1:])
    for word in rest:
        if word in ("writeback", "compressor"):
            pieces.append(f"{word}={next(rest, '')}")
        else:
            pieces.append(word)
    return pieces


def _parse_pieces(pieces: list[str], found: TableArguments) -> TableArguments:
    """``found`` with what the pieces say; later ones override earlier ones, as in the driver (``dm_icomp_ctr``)."""
    notes = list(found.notes)
    for piece in filter(None, pieces):
        key, value = _split(piece)
        if key == "device" and value:
            require_name(value)
            found = replace(found, device=value)
        elif piece in ("writethrough", "writethough"):
            if piece == "writethough":
                notes.append("the driver does not know the spelling 'writethough' and would use writeback=0")
            found = replace(found, writeback_seconds=None, mode_given=True)
        elif key == "writeback":
            found = replace(found, writeback_seconds=_c_number(piece, value), mode_given=True)
        elif key == "compressor" and value:
            found = replace(found, compressor=compressor_by_name(value).label)
        elif piece == "critical" or (key == "critical" and value in ("0", "1")):
            found = replace(found, critical=value != "0")
        else:
            raise UsageError(
                f"{piece!r} is not an argument of {TARGET_TYPE}", hint="the driver would ignore it silently"
            )
    return replace(found, notes=tuple(notes))


def _split(piece: str) -> tuple[str, str]:
    for position, character in enumerate(piece):
        if character in "=:":
            return piece[:position], piece[position + 1 :]
    return piece, ""


def _c_number(piece: str, text: str) -> int:
    """A number in C notation (``10``, ``0x10``, ``010``)."""
    match = _C_NUMBER.match(text)
    digits = match.group(1) if match else ""
    try:
        is_octal = digits.isdecimal() and digits.startswith("0")
        number = int(digits, 8 if is_octal else 0)
    except ValueError:
        raise UsageError(f"{piece!r}: not a number of seconds", hint="writeback=N, N in C notation") from None
    if number > _WRITEBACK_MAX_SECONDS:
        raise UsageError(f"{piece!r}: more than {_WRITEBACK_MAX_SECONDS} seconds")
    return number


def arguments_from_settings(settings: Settings) -> TableArguments:
    """What single settings and the setting ``table`` (a line) ask for.

    The settings are the words of a line (:data:`~.settings.TABLE_WORDS`). Single ones override the
    line, later ones earlier ones.

    Raises:
        UsageError: one of them cannot be meant.
    """
    line = settings.text("table")
    found = parse_table(line) if line else TableArguments()
    words = [name for name in settings if name in TABLE_WORDS and name != "table"]
    return _parse_pieces([_piece(settings, name) for name in words], found)


def _piece(settings: Settings, name: str) -> str:
    """A setting as it would stand in a table line; empty when it is switched off."""
    match name:
        case "mode":
            return settings.text(name)
        case "critical":
            return f"critical={int(settings.on(name))}"
        case "writethrough" | "writethough":
            return name if settings.on(name) else ""
        case _:
            return f"{name}={settings.text(name)}"


def known_data_blocks(settings: Settings) -> int | None:
    """Data blocks that the user knows the volume to have (from ``table`` or ``data-blocks``).

    Raises:
        UsageError: the two contradict each other, or a word of the table line cannot be meant.
    """
    sectors = arguments_from_settings(settings).length_sectors
    from_table = None if sectors is None else sectors // BLOCK_SECTORS
    given = settings.number("data-blocks")
    if None not in (from_table, given) and from_table != given:
        raise UsageError(f"data-blocks={given}, but the table line is for {from_table} blocks")
    return from_table if given is None else given


def format_table(volume: Volume, arguments: TableArguments, device: str = "") -> str:
    """The line that activates ``volume``, in the spelling that the driver understands.

    Raises:
        UsageError: the line cannot carry the device's name.
    """
    path = device or arguments.device or volume.device.path
    require_name(path)
    pieces = [f"device={path}", arguments.mode]
    compressor = volume.compressor
    if compressor in WRITABLE:
        pieces.append(f"compressor={compressor.label}")
    if arguments.critical:
        pieces.append("critical")
    return f"0 {volume.data_blocks * BLOCK_SECTORS} {TARGET_TYPE} {','.join(pieces)}"


def require_name(path: str) -> None:
    """Refuse a device's name that the line cannot carry; the driver joins its arguments and splits them at commas.

    Raises:
        UsageError: it holds a comma, a blank, a backslash, or what no table line can carry.
    """
    require_carried(path)
    if not {",", " ", "\\"}.isdisjoint(path):
        raise UsageError(f"a table line cannot carry the name {path!r}", hint="use MAJOR:MINOR")


def require_device(arguments: TableArguments, path: str) -> None:
    """Refuse a table line that names another device than the one that is to be changed.

    Raises:
        UsageError: it does.
    """
    name = arguments.device
    if name and not is_same_drive(name, path):
        hint = "name that device, or leave device= away"
        raise UsageError(f"the table line is for another device, {name}", device=path, hint=hint)


def require_mode(text: str) -> None:
    """Refuse what is not the mode of a line.

    Raises:
        UsageError: it is neither ``writethrough`` nor ``writeback=N``.
    """
    if not _parse_pieces([text], TableArguments()).mode_given:
        raise UsageError("neither writethrough nor writeback=N")


def require_length(volume: Volume, arguments: TableArguments) -> None:
    """Refuse a table line of another length than the volume's.

    Raises:
        UsageError: it is.
    """
    sectors = volume.data_blocks * BLOCK_SECTORS
    if arguments.length_sectors not in (None, sectors):
        raise UsageError(
            f"the line is for {arguments.length_sectors} sectors, the volume has {sectors}", device=volume.device.path
        )


def table_line(target: Target, settings: Settings) -> TableLine:
    """The ``dmsetup`` table line of a volume; settings as in :func:`arguments_from_settings`.

    Raises:
        MetadataError: the super block is damaged: activation would format the device.
        UsageError: the settings contradict the volume, or it does not start at sector 0.
    """
    volume = open_volume(target.device, target.start_bytes)
    if volume.is_assumed:
        raise MetadataError("the super block cannot be read: the driver cannot use it", device=target.device.path)
    arguments = arguments_from_settings(settings)
    require_length(volume, arguments)
    start = target.start_bytes + start_of_view(target.device)
    if start and not arguments.device:
        raise UsageError(
            f"the volume starts at sector {start // SECTOR_BYTES}, the driver only knows whole devices",
            device=target.device.path,
            hint="name its partition with device=PATH",
        )
    return TableLine(format_table(volume, arguments), ACTIVATION_WARNING)
