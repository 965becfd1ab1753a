"""fio iologs, dm-log-writes logs and the data of writes."""

from __future__ import annotations

import io
import struct
import subprocess
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoned_tools.engine.log_writes import parse_log_writes
from zoned_tools.engine.trace import Action, Pattern, Request, open_trace, parse_iolog, pattern_data
from zoned_tools.errors import DeviceError, MetadataError, UsageError

if TYPE_CHECKING:
    from typing_extensions import Buffer


def parse(text: str | bytes) -> list[Request]:
    return list(parse_iolog(io.BytesIO(text if isinstance(text, bytes) else text.encode()), "t.log"))


def summary(requests: list[Request]) -> list[tuple[object, ...]]:
    return [(r.action, r.offset_bytes, r.length_bytes) for r in requests if r.action is not Action.WAIT]


def test_version_2() -> None:
    requests = parse(
        "fio version 2 iolog\n/dev/a add\n/dev/a open\n/dev/a write 4096 8192\n\n/dev/a read 0 512\n/dev/a sync 0 0\n"
        "/dev/a datasync 0 0\n/dev/a wait 20000000 0\n/dev/a trim 4096 4096\n/dev/a discard 0 4096\n/dev/a close\n"
    )
    assert requests == [
        Request("line 4", Action.WRITE, 4096, 8192),
        Request("line 6", Action.READ, 0, 512),
        Request("line 7", Action.FLUSH),
        Request("line 8", Action.FLUSH),
        Request("line 9", Action.WAIT, microseconds=20_000_000),
        Request("line 10", Action.TRIM, 4096, 4096),
        Request("line 11", Action.TRIM, 0, 4096),
    ]


def test_version_3_has_times() -> None:
    requests = parse("fio version 3 iolog\n5 x add\n7 x open\n100 x write 0 4096\n100 x sync 4096 0\n9000 x close\n")
    assert [(r.action, r.microseconds) for r in requests] == [
        (Action.WAIT, 5),
        (Action.WAIT, 2),
        (Action.WAIT, 93),
        (Action.WRITE, 0),
        (Action.FLUSH, 0),
        (Action.WAIT, 8900),
    ]


def test_several_files_are_fine_while_one_is_used() -> None:
    head = "fio version 2 iolog\n/a add\n/b c add\n/a open\n/b c open\n/b c write 0 4096\n"
    assert summary(parse(head)) == [(Action.WRITE, 0, 4096)]
    with pytest.raises(UsageError, match=r"line 7: requests to '/a' and to '/b c'"):
        parse(head + "/a read 0 4096\n")


def test_short_forms_of_lines_without_a_range() -> None:
    requests = parse("fio version 2 iolog\nx sync\nx wait 100\nx datasync\n")
    assert [r.action for r in requests] == [Action.FLUSH, Action.WAIT, Action.FLUSH]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("x write 0", "not '<file> <action>"),
        ("x write zero 4096", "'zero' is not"),
        ("x write 0 -1", "'-1' is not"),
        ("x write 0 4096 7", "not '<file> <action>"),
        ("x write 0 ٤٠٩٦", "is not a number"),
        ("x write 0 99999999999999999999", "is not a number"),
        ("x write 9223372036854775808 1", "is not a number"),
        ("x erase 0 4096", "not '<file> <action>"),
        ("write", "not '<file> <action>"),
        ("\0\0\0\0", "not '<file> <action>"),
        ("x" * 9000, "longer than"),
    ],
)
def test_damaged_lines_are_named(line: str, what: str) -> None:
    with pytest.raises(MetadataError, match=r"line 3: .*" + what.replace("(", r"\(")):
        parse(f"fio version 2 iolog\nx write 0 4096\n{line}\nx write 4096 4096\n")


def test_version_3_lines_need_their_time_and_cannot_wait() -> None:
    for line in ("x write 0 4096", "1 x wait 100 0"):
        with pytest.raises(MetadataError, match="line 2"):
            parse(f"fio version 3 iolog\n{line}\n")


@pytest.mark.parametrize("text", ["", "0, 0, 4096\n", "fio version 1 iolog\n", "fio version 4 iolog\n", "\0" * 100000])
def test_other_files_are_no_iologs(text: str) -> None:
    with pytest.raises(MetadataError, match="line 1"):
        parse(text)


def test_a_trace_is_read_as_a_stream() -> None:
    class Endless(io.RawIOBase):
        def __init__(self) -> None:
            self.given = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Buffer) -> int:
            line = b"fio version 2 iolog\n" if not self.given else b"x write 0 4096\n"
            self.given += 1
            memoryview(buffer)[: len(line)] = line
            return len(line)

    assert len(list(islice(parse_iolog(io.BufferedReader(cast(io.FileIO, Endless())), "t"), 1000))) == 1000


@given(st.binary(max_size=300))
def test_nonsense_is_an_error_or_a_trace(tail: bytes) -> None:
    for version in (b"2", b"3"):
        with suppress(MetadataError, UsageError):
            parse(b"fio version " + version + b" iolog\n" + tail)


def test_what_fio_writes_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    subprocess.run(
        [
            "fio",
            "--name=a",
            f"--filename={tmp_path / 'data'}",
            "--size=1m",
            "--rw=randrw",
            "--bsrange=4k-32k",
            "--fsync=4",
            f"--write_iolog={log}",
            "--allow_file_create=1",
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    with open_trace(str(log)) as file:
        requests = list(parse_iolog(file, str(log)))
    lines = [line.split()[2:] for line in log.read_text().splitlines()[1:]]
    expected = [
        (Action.FLUSH, 0, 0) if action.endswith("sync") else (Action(action), int(where[0]), int(where[1]))
        for action, *where in lines
        if action not in ("add", "open", "close")
    ]
    assert {action for action, _, _ in expected} == {Action.READ, Action.WRITE, Action.FLUSH}
    assert summary(requests) == expected


def test_missing_traces(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path, "nul\0"):
        with pytest.raises(DeviceError), open_trace(str(path)) as file:
            list(parse_iolog(file, str(path)))


# -- data


def test_stamps_name_block_and_write() -> None:
    data = pattern_data(Pattern.STAMP, 9, 4096 * 5, 8192)
    assert data[:4096] == struct.pack("<QQ", 5, 9) * 256
    assert data[4096:] == struct.pack("<QQ", 6, 9) * 256
    assert pattern_data(Pattern.ZERO, 9, 1, 100) == bytes(100)


@given(st.integers(0, 100_000), st.integers(0, 20_000), st.integers(0, 2**65))
def test_parts_of_a_stamp_are_cut_from_the_whole(offset: int, length: int, sequence: int) -> None:
    whole = pattern_data(Pattern.STAMP, sequence, offset // 4096 * 4096, 32768)
    assert pattern_data(Pattern.STAMP, sequence, offset, length) == whole[offset % 4096 :][:length]


# -- logs of dm-log-writes


def log_writes(entries: list[tuple[int, int, int, bytes]], sector: int = 512, count: int | None = None) -> bytes:
    """A log; entries are ``(sector, sectors, flags, data or text of a mark)``."""
    number = len(entries) if count is None else count
    raw = struct.pack("<QQQI", 0x6A736677736872, 1, number, sector).ljust(sector, b"\0")
    for where, sectors, flags, data in entries:
        text = data if flags & 8 else b""
        raw += (struct.pack("<QQQQ", where, sectors, flags, len(text)) + text).ljust(sector, b"\0")
        raw += b"" if flags & (8 | 4) else data
    return raw


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_log_gives_its_requests(sector: int) -> None:
    raw = log_writes(
        [
            (8, 2, 0, b"a" * 2 * sector),
            (0, 0, 8, b"a mark"),
            (0, 0, 1, b""),
            (4, 1, 1 | 2 | 16, b"b" * sector),
            (1, 16, 4, b""),
        ],
        sector,
    )
    requests = list(parse_log_writes(io.BytesIO(raw), "log"))
    assert requests == [
        Request("entry 0", Action.WRITE, 8 * sector, 2 * sector, b"a" * 2 * sector),
        Request("entry 2", Action.FLUSH),
        Request("entry 3", Action.FLUSH),
        Request("entry 3", Action.WRITE, 4 * sector, sector, b"b" * sector),
        Request("entry 3", Action.FLUSH),
        Request("entry 4", Action.TRIM, sector, 16 * sector),
    ]


def test_long_writes_of_a_log_come_in_parts() -> None:
    data = bytes(range(256)) * 40960
    raw = log_writes([(0, len(data) // 512, 0, data)])
    requests = list(parse_log_writes(io.BytesIO(raw), "log"))
    assert [r.length_bytes for r in requests] == [4 << 20, 4 << 20, 2 << 20]
    assert b"".join(bytes(r.data or b"") for r in requests) == data


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"", "super block"),
        (bytes(4096), "not a log"),
        (log_writes([])[:100], "super block"),
        (log_writes([], count=1), "entry 0"),
        (log_writes([(0, 8, 0, b"a" * 4095)]), "entry 0"),
        (log_writes([(0, 0, 32, b"")]), "entry 0"),
        (log_writes([(0, 1 << 60, 0, b"")]), "entry 0"),
        (log_writes([(0, 1 << 50, 0, b"")]), "entry 0"),
        (log_writes([], sector=512).replace(struct.pack("<I", 512), struct.pack("<I", 0), 1), "not a log"),
    ],
)
def test_damaged_logs_are_refused(raw: bytes, what: str) -> None:
    with pytest.raises(MetadataError, match=what):
        list(parse_log_writes(io.BytesIO(raw), "log"))
