"""Table lines in every spelling."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.formats.inplace_compress.images import (
    corrupt_bytes,
    image_bytes,
    in_memory,
    line_of,
)
from zoned_tools.errors import MetadataError, UsageError
from zoned_tools.formats.contract import Journey
from zoned_tools.formats.inplace_compress import LAYOUT
from zoned_tools.formats.inplace_compress.table import parse_table


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("device=/dev/sdc,writethrough,compressor=lzo", ("/dev/sdc", None, "lzo", False, None)),
        ("device:/dev/sdc,writethough", ("/dev/sdc", None, "", False, None)),
        ("0 8176 inplacecompress device=8:32,writeback=0x10,compressor:842,critical", ("8:32", 16, "842", True, 8176)),
        ("0 8176 inplacecompress device=8:32, writeback:010, compressor=lzo-rle", ("8:32", 8, "lzo", False, 8176)),
        ("device=a,device=b,writeback=5,writethrough,,compressor=842-generic", ("b", None, "842", False, None)),
        ("254:3 writeback:5 compressor:842 critical:1", ("254:3", 5, "842", True, None)),
        ("254:3 writethrough compressor:lzo critical:0", ("254:3", None, "lzo", False, None)),
        ("/dev/sdb writeback 7 compressor lzo", ("/dev/sdb", 7, "lzo", False, None)),
        ("/dev/sdb", ("/dev/sdb", None, "", False, None)),
    ],
)
def test_spellings_of_the_table(line: str, wanted: tuple[object, ...]) -> None:
    found = parse_table(line)
    assert (found.device, found.writeback_seconds, found.compressor, found.critical, found.length_sectors) == wanted


@pytest.mark.parametrize(
    "line",
    [
        "",
        "0 8176 inplacecompress",
        "device=/dev/sdc writethrough",
        "device=x,writeback=5x",
        "device=x,writeback=",
        "device=x,writeback=09",
        "device=x,writeback=2147483648",
        "device=x,bogus=1",
        "device=x,compressor=zstd",
        "device=",
        "1 8176 inplacecompress device=x",
        "0 8177 inplacecompress device=x",
        "0 0 inplacecompress device=x",
        "0 x inplacecompress device=x",
        "device=x,critical=2",
        "device=x,writeback=-1",
        "device=x,writeback=" + "9" * 5000,
    ],
)
def test_table_lines_that_cannot_be_meant(line: str) -> None:
    with pytest.raises(UsageError):
        parse_table(line)


@pytest.mark.parametrize("mode", ["writethrough", "writeback=0", "writeback=2147483647"])
@pytest.mark.parametrize("critical", ["0", "1"])
def test_printed_lines_are_understood(mode: str, critical: str, tmp_path: Path) -> None:
    target = in_memory(tmp_path, image_bytes("p2-842"))
    line = line_of(target, {"mode": mode, "critical": critical, "device": "8:16"})
    found = parse_table(line)
    assert (found.device, found.mode, found.compressor, found.critical) == ("8:16", mode, "842", critical == "1")
    assert found.length_sectors == 8176
    assert found.notes == ()
    assert line_of(target, {"table": line}) == line


def test_no_table_line_for_a_device_that_activation_would_format(tmp_path: Path) -> None:
    with pytest.raises(MetadataError):
        line_of(in_memory(tmp_path, corrupt_bytes("lzo-sb-magic")))
    sound = in_memory(tmp_path, image_bytes("p1-lzo"))
    with pytest.raises(UsageError):
        line_of(sound, {"table": "0 8168 inplacecompress device=x"})
    with pytest.raises(UsageError):
        line_of(sound, {"device": "a b"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("device", value) for value in ("", "a b", "a,b", "a\\b", "a\nb", "\x1b[31m", "\udcff", "\xe0")),
        *(("mode", value) for value in ("", "device=/dev/x", "critical", "writeback=", "writethrough,critical")),
        *(("table", value) for value in ("", "device=a\x1bb,writethrough", "device=a b")),
    ],
)
def test_settings_that_would_break_the_line(name: str, value: str) -> None:
    for journey in (Journey.TABLE, Journey.CHECK, Journey.LOGICAL):
        with pytest.raises(UsageError, match=rf"^{name}=[\s\S]* is not possible: "):
            LAYOUT.parse_settings({name: value}, journey)
