"""``zoned zonefs`` from the command line."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.formats.zonefs.images import MIB, make_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.programs import Result

KIB = 1024


@pytest.fixture
def image(tmp_path: Path, program: Callable[..., Result]) -> Path:
    path = make_image(
        tmp_path / "disk.img", size_bytes=32 * MIB, conventional=3, capacity_bytes=3 * MIB, max_open=2, max_active=4
    )
    assert program("mkzonefs", "-o", "aggr_cnv,uid=5,perm=600", path).status == 0
    return path


def entry(program: Callable[..., Result], image: Path, path: str) -> dict[str, object]:
    document = program("zoned", "zonefs", "stat", "--json", image, path).json
    assert (document.pop("schema"), document.pop("exit_status"), document.pop("errors")) == (
        "zoned.zonefs.stat/1",
        0,
        [],
    )
    return dict(document)


def test_ls(image: Path, program: Callable[..., Result]) -> None:
    assert program("zoned", "zonefs", "ls", image).out.splitlines() == [
        "/cnv",
        "/cnv/0",
        "/seq",
        *(f"/seq/{n}" for n in range(5)),
    ]
    assert program("zoned", "zonefs", "ls", image, "seq").out.splitlines() == [f"/seq/{n}" for n in range(5)]
    assert program("zoned", "zonefs", "ls", image, "/seq/4").out == "/seq/4\n"
    lines = program("zoned", "zonefs", "ls", "-l", image).out.splitlines()
    assert lines[0] == f"total {(8 + 5 * 3) * 1024}"
    assert lines[2].split() == ["-rw-------", "1", "5", "0", str(8 * MIB), "1", "not-wp", "/cnv/0"]
    assert lines[4].split() == ["-rw-------", "1", "5", "0", "0", "3", "empty", "/seq/0"]
    document = program("zoned", "zonefs", "ls", "--json", image, "/seq/1").json
    assert [e["path"] for e in document["entries"]] == ["/seq/1"]
    assert document["statfs"]["files"] == 8
    missing = program("zoned", "zonefs", "ls", image, "/seq/5")
    assert (missing.status, missing.out) == (8, "")
    assert missing.err == f"zoned: {image}: /seq/5: no such file or directory\n"


def test_json_of_ls_and_stat_agree(image: Path, program: Callable[..., Result]) -> None:
    for row in program("zoned", "zonefs", "ls", "--json", image).json["entries"]:
        assert entry(program, image, row["path"]) == row


def test_root_size_of_old_kernels(image: Path, program: Callable[..., Result]) -> None:
    sizes = {}
    for version in ("6.1", "6.2.9-amd64", "6.3", "6.12", "7.0"):
        document = program("zoned", "zonefs", "stat", "--json", "--kernel", version, image).json
        sizes[version] = document["size_bytes"]
    assert sizes == {"6.1": 2, "6.2.9-amd64": 2, "6.3": 4, "6.12": 4, "7.0": 4}
    assert program("zoned", "zonefs", "stat", "--kernel", "new", image).status == 16


def test_put_cat_truncate(image: Path, tmp_path: Path, program: Callable[..., Result]) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(5000))
    refused = program("zoned", "zonefs", "put", image, "/seq/0", source)
    assert (refused.status, "--pad" in refused.err) == (8, True)
    planned = program("zoned", "zonefs", "put", "--dry-run", "--pad", image, "/seq/0", source)
    assert planned.out == f"{image}: would write 8192 bytes to /seq/0 at byte 0\n"
    assert entry(program, image, "/seq/0")["size_bytes"] == 0
    result = program("zoned", "zonefs", "put", "--pad", "--json", image, "/seq/0", source)
    assert (result.json["offset_bytes"], result.json["length_bytes"]) == (0, 8192)
    assert entry(program, image, "/seq/0")["condition"] == "closed"
    assert program("zoned", "zonefs", "put", "--pad", image, "/seq/0", source).status == 0
    copy = tmp_path / "copy"
    with open(copy, "wb") as file:
        subprocess.run([sys.executable, "-m", "zoned_tools", "zonefs", "cat", image, "/seq/0"], stdout=file, check=True)
    assert copy.read_bytes() == (source.read_bytes().ljust(8192, b"\0")) * 2
    assert program("zoned", "zonefs", "truncate", image, "/seq/0", "8192").status == 8
    assert program("zoned", "zonefs", "truncate", "--dry-run", image, "/seq/0", "0").status == 0
    assert entry(program, image, "/seq/0")["size_bytes"] == 16384
    assert program("zoned", "zonefs", "truncate", image, "/seq/0", "max").status == 0
    assert entry(program, image, "/seq/0")["condition"] == "full"
    assert program("zoned", "zonefs", "put", image, "/seq/0", source).status == 8
    assert program("zoned", "zonefs", "truncate", image, "/seq/0", "0").status == 0
    assert entry(program, image, "/seq/0")["condition"] == "empty"


def test_put_conventional(image: Path, tmp_path: Path, program: Callable[..., Result]) -> None:
    """Any place, any length, over the border of two zones of one aggregated file."""
    source = tmp_path / "source"
    source.write_bytes(b"abc" * 1000)
    assert program("zoned", "zonefs", "put", "--offset", 4 * MIB - 1500, image, "/cnv/0", source).status == 0
    shown = program("zoned", "zonefs", "cat", "--offset", 4 * MIB - 1503, "--length", 3006, image, "/cnv/0")
    assert shown.out == "\0\0\0" + "abc" * 1000 + "\0\0\0"
    refused = program("zoned", "zonefs", "put", "--offset", 8 * MIB - 1, image, "/cnv/0", source)
    assert (refused.status, "room for 1" in refused.err) == (8, True)


def test_put_is_checked_first(
    image: Path, tmp_path: Path, program: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written when not all of it fits, whatever the source is."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bytes(3 * MIB + 4096))))
    assert program("zoned", "zonefs", "put", image, "/seq/1").status == 8
    assert entry(program, image, "/seq/1")["size_bytes"] == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"z" * 3 * MIB)))
    assert program("zoned", "zonefs", "put", image, "/seq/1", "-").status == 0
    assert entry(program, image, "/seq/1")["condition"] == "full"
    assert program("zoned", "zonefs", "put", image, "/seq/2", tmp_path / "none").status == 8


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("ls", "{plain}"), 8),
        (("ls", "/nowhere"), 8),
        (("cat", "{image}", "/seq"), 8),
        (("cat", "{image}", "/seq/0", "--offset", "-1"), 16),
        (("cat", "{image}", "/seq/0", "--offset", "x"), 16),
        (("truncate", "{image}", "/seq/0", "much"), 16),
        (("truncate", "{image}", "/cnv/0", "max"), 8),
        (("mount", "{image}", "/nowhere"), 8),
        (("mount", "{image}", "/", "-o", "errors=never"), 16),
        (("ls",), 16),
        (("ls", "{image}", "--start", "8"), 8),
        (("ls", "{image}", "--start", "8192"), 8),
    ],
)
def test_errors_are_one_line(
    arguments: tuple[str, ...], status: int, image: Path, tmp_path: Path, program: Callable[..., Result]
) -> None:
    plain = tmp_path / "plain.img"
    plain.write_bytes(bytes(MIB))
    words = [word.format(image=image, plain=plain) for word in arguments]
    result = program("zoned", "zonefs", *words)
    assert (result.status, result.out) == (status, "")
    assert len(result.err.splitlines()) == 1


def test_large_drive(tmp_path: Path, program: Callable[..., Result]) -> None:
    """15 TB: 55,880 zones of 256 MiB, 524 of them conventional, listed within the time of a whole process."""
    image = make_image(
        tmp_path / "disk.img", size_bytes=55880 * 256 * MIB, zone_bytes=256 * MIB, conventional=524, block_bytes=4096
    )
    assert program("mkzonefs", "-o", "aggr_cnv", image).status == 0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-m", "zoned_tools", "zonefs", "ls", "-l", str(image)]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 1.5
    assert sum("/seq/" in line for line in lines) == 55356
    assert [line.split()[4] for line in lines if line.endswith("/cnv/0")] == ["140391743488"]
    document = program("zoned", "zonefs", "ls", "--json", image).json
    assert len(document["entries"]) == 55356 + 4
