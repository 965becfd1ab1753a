"""The layout's own choices: the words of its table line, how to check, what a repair may do, how the mapper behaves."""

from __future__ import annotations

from zoned_tools.formats.shared.settings import Journey, choice, number, switch, text

_CHECK = (Journey.CHECK, Journey.REPAIR)
_LINE = (*_CHECK, Journey.LOGICAL, Journey.TABLE)

TABLE_WORDS = ("table", "mode", "device", "writethrough", "writethough", "writeback", "compressor", "critical")
"""Settings that are a table line or a word of one; the order in which they are given counts, as in a line."""


def _verify_table(line: str) -> None:
    from zoned_tools.formats.inplace_compress.table import parse_table

    parse_table(line)


def _verify_mode(mode: str) -> None:
    from zoned_tools.formats.inplace_compress.table import require_mode

    require_mode(mode)


def _verify_device(name: str) -> None:
    from zoned_tools.formats.inplace_compress.table import require_name

    require_name(name)


SETTINGS = (
    text(
        "table",
        "a dmsetup table line of the volume, or its arguments",
        *_LINE,
        Journey.FORMAT,
        kind="line",
        verify=_verify_table,
    ),
    text("mode", "writethrough, or writeback=N", *_LINE, kind="mode", verify=_verify_mode),
    text(
        "device",
        "the backing device as the table line names it: path or MAJOR:MINOR",
        *_LINE,
        kind="device",
        verify=_verify_device,
    ),
    switch("writethrough", "write the bitmap with every change", *_LINE, bare=True),
    switch("writethough", "writethrough, as the target's own documentation spells it", *_LINE, bare=True),
    text("writeback", "write the bitmap every N seconds, N in C notation", *_LINE, kind="n"),
    text("compressor", "lzo or 842; an existing volume's own wins", *_LINE, Journey.FORMAT, kind="compressor"),
    switch("critical", "allocate without sleeping, because swap lies on the device", *_LINE, bare=True),
    number("data-blocks", "blocks of 4096 bytes that the volume has", *_CHECK, Journey.FORMAT, minimum=1),
    switch("force", "go on with the given size when the super block is damaged", *_CHECK),
    switch("payloads", "read and decode what is stored", *_CHECK, default="yes"),
    number("processes", "how many processes decode, 0 for one on every core", *_CHECK, maximum=256, default="0"),
    switch("relink", "point the bitmap at payloads that verify behind wrong metadata", *_CHECK),
    switch(
        "zero-unreadable",
        "turn unreadable extents without a payload that verifies into zeroes: their content is lost",
        *_CHECK,
    ),
    switch(
        "salvage-raw",
        "turn unreadable extents without a payload that verifies into their bytes as they are stored",
        *_CHECK,
    ),
    switch("decode-mistagged", "store the decoded content of tagged raw extents", *_CHECK),
    switch("swap-words", "reverse the bitmap of a host of the other byte order", *_CHECK),
    switch("clear-slack", "clear bits behind the last entry that may be entries of raw data", *_CHECK),
    choice("window", ("2", "32"), "window of the host: 4 KiB or 64 KiB pages", Journey.LOGICAL, default="2"),
    choice(
        "encoder",
        ("kernel", "fast"),
        "the driver's own LZO streams (slow), or quick ones",
        Journey.LOGICAL,
        default="fast",
        faithful="kernel",
    ),
    choice("bitmap", ("little", "big"), "byte order of the host that wrote it", Journey.LOGICAL, default="little"),
    choice("unreadable", ("fail", "zeroes"), "what unreadable extents read as", Journey.LOGICAL, default="fail"),
    choice(
        "discard", ("holes", "refuse"), "make holes, or refuse as the driver does", Journey.LOGICAL, default="holes"
    ),
    choice("emulate", ("misplaced-data",), "a defect of the driver to reproduce", Journey.LOGICAL),
)
