"""Cases of the rescue vectors: damaged copies of other vectors' images, commands, and what must come of them.

A case's operations and the keys of its steps are described in ``tests/vectors/rescue/README.md``.

    python -m tests.engine.rescue_cases [CASE...]     # which hold, and the first thing that does not
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tests.archives import expand_extents, poke, set_zone, unpack
from zoned_tools.device.image import read_dump

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.programs import Result

VECTORS = Path(__file__).parents[1] / "vectors"
CASES: dict[str, dict[str, Any]] = {
    case["id"]: case for case in json.loads((VECTORS / "rescue/cases.json").read_text(encoding="utf-8"))
}
BLOCK = 4096
Run: TypeAlias = Callable[["Sequence[str]"], "Result"]


# -- building a case


def _unpack_base(case: dict[str, Any], folder: Path) -> None:
    base = VECTORS / case["base"]
    extents, image = (base.with_name(base.name + ending) for ending in (".zx.xz", ".img.xz"))
    if extents.exists():
        expand_extents(base, folder / "disk.img")
    elif image.exists():
        (folder / "disk.img").write_bytes(lzma.decompress(image.read_bytes()))
    else:
        unpack(base.with_name(base.name + ".tar.xz"), folder)


def _raw(file: Path, size: int, rows: Sequence[tuple[int, int, int]]) -> None:
    with open(file, "wb") as stream:
        stream.truncate(size)
        for first, count, seed in rows:
            stream.seek(first * BLOCK)
            stream.writelines(struct.pack("<QQ", block, seed) * 256 for block in range(first, first + count))


def _set_zone(image: Path, zone: int, wp: int, condition: int) -> None:
    """``wp`` counts from the zone's start."""
    set_zone(image, zone, wp=zone * read_dump(f"{image}.zones").geometry.zone_bytes + wp, condition=condition)


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--sparse=always", source, target], check=True)
    if Path(f"{source}.zones").exists():
        shutil.copy(f"{source}.zones", f"{target}.zones")


def _map(rows: Iterable[tuple[int, int, str]]) -> str:
    return "# Mapfile\n0x0     +               1\n" + "".join(f"0x{p:X}  0x{n:X}  {s}\n" for p, n, s in rows)


def build(case: dict[str, Any], folder: Path) -> None:
    """Make the files of a case in an empty folder."""
    _unpack_base(case, folder)
    for kind, name, *rest in case["make"]:
        _OPERATIONS[kind](folder, folder / name, *rest)


_OPERATIONS: dict[str, Callable[..., object]] = {
    "fill": lambda _, file, at, count, byte: poke(file, at, bytes.fromhex(byte) * count),
    "patch": lambda _, file, at, raw: poke(file, at, bytes.fromhex(raw)),
    "drop-zones": lambda _, file: os.unlink(f"{file}.zones"),
    "zones-of": lambda folder, file, other: shutil.copy(folder / f"{other}.zones", f"{file}.zones"),
    "truncate": lambda _, file, size: os.truncate(file, size),
    "map": lambda folder, file, rows, name: (folder / name if name else Path(f"{file}.map")).write_text(_map(rows)),
    "copy": lambda folder, file, other: _copy(folder / other, file),
    "new": lambda _, file, size: _raw(file, size, ()),
    "raw": lambda _, file, size, rows: _raw(file, size, rows),
    "zone": lambda _, file, *row: _set_zone(file, *row),
}


# -- running it


def play(case: dict[str, Any], folder: Path, run: Run) -> None:
    """Run the steps of a case; ``run`` gives the result of a command line, the program its first word.

    Raises:
        AssertionError: something is not as the case says.
    """
    devices = [folder / name for name in case["files"]]
    for number, step in enumerate(case["run"]):
        player = _Step(step, folder, devices, f"{case['id']} step {number}")
        player.play(run)
        if "clean_sha256" in step:
            player.bounded(case, run)


class _Step:
    def __init__(self, step: dict[str, Any], folder: Path, devices: Sequence[Path], name: str) -> None:
        self.step = step
        self.folder = folder
        self.devices = devices
        self.name = name
        self.out, self.map_out = folder / "OUT", folder / "MAPOUT"
        self.result: Result

    def _word(self, word: str) -> str:
        for mark, value in (("@OUT", self.out), ("@MAPOUT", self.map_out), ("@DIR", self.folder)):
            word = word.replace(mark, str(value))
        return str(self.devices[int(word[1:])]) if word[:1] == "@" and word[1:].isdigit() else word

    def _state(self) -> list[bytes]:
        files = [file for device in self.devices for file in (device, Path(f"{device}.zones")) if file.exists()]
        return [hashlib.sha256(file.read_bytes()).digest() for file in files]

    def play(self, run: Run) -> None:
        before = self._state() if self.step.get("unchanged") else []
        if "map_out" in self.step:
            self.map_out.unlink(missing_ok=True)
        self.result = run([self._word(word) for word in self.step["cmd"]])
        assert "Traceback" not in self.result.err, self.result.err
        if before:
            assert self._state() == before, f"{self.name}: a device changed"
        for key, value in self.step.items():
            if key not in ("cmd", "unchanged", "least", "most", "clean_sha256") or (
                key == "most" and isinstance(value, dict)
            ):
                getattr(self, f"_{key}")(value)

    @property
    def _said(self) -> str:
        return self.result.err + self.result.out

    @property
    def _document(self) -> Any:
        return self.result.json

    @property
    def _findings(self) -> list[dict[str, Any]]:
        return [finding for device in self._document["devices"] for finding in device["findings"]]

    def _exit(self, accepted: list[int]) -> None:
        assert self.result.status in accepted, f"{self.name}: {self.result.status}: {self._said}"

    def _must(self, wanted: list[tuple[str, dict[str, Any]]]) -> None:
        found = [(row["id"].split(".")[-1], {**row, **row.get("where", {})}) for row in self._findings]
        for code, where in wanted:
            rows = [row for name, row in found if name == code]
            assert any(all(row.get(k) == v for k, v in where.items()) for row in rows), (
                self.name,
                code,
                where,
                rows,
                found,
            )

    def _must_not(self, codes: list[str]) -> None:
        found = {row["id"].split(".")[-1] for row in self._findings}
        assert not found & set(codes), f"{self.name}: {found & set(codes)}"

    def _count(self, wanted: dict[str, int]) -> None:
        found = Counter(row["id"].split(".")[-1] for row in self._findings)
        assert {code: found[code] for code in wanted} == wanted, self.name

    def _sha256(self, wanted: str) -> None:
        assert _digest(self.out) == wanted, f"{self.name}: another content"

    def _prefix(self, wanted: tuple[int, str]) -> None:
        content = self.out.read_bytes()
        assert hashlib.sha256(content[: wanted[0]]).hexdigest() == wanted[1], self.name
        assert not any(content[wanted[0] :]), self.name

    def _no_out(self, _: bool) -> None:
        assert not self.out.exists(), f"{self.name}: an output file is left"

    def _lost_ranges(self) -> list[list[int]]:
        joined: list[list[int]] = []
        for row in self._document["lost"]:
            offset, length = row["offset_bytes"], row["length_bytes"]
            if joined and sum(joined[-1]) == offset:
                joined[-1][1] += length
            else:
                joined.append([offset, length])
        return joined

    def _lost(self, wanted: list[list[int]]) -> None:
        assert self._lost_ranges() == wanted, self.name

    def _map_out(self, wanted: list[list[Any]]) -> None:
        rows = [line.split() for line in self.map_out.read_text("ascii").splitlines() if line[:1] not in ("", "#")][1:]
        assert [[int(at, 0), int(size, 0), letter] for at, size, letter in rows] == wanted, self.name

    def _orphans(self, wanted: list[tuple[int, int, str]]) -> None:
        found = json.loads((self.folder / "orphans/orphans.json").read_text(encoding="utf-8"))
        rows = {row["zone"]: row for row in found["orphans"]}
        assert sorted(rows) == sorted(zone for zone, _, _ in wanted), self.name
        for zone, valid, digest in wanted:
            assert rows[zone]["valid"] == valid, self.name
            assert _digest(self.folder / f"orphans/zone-{zone:05}.raw") == digest == rows[zone]["sha256"], self.name

    def _zones(self, wanted: list[tuple[int, int, int, int, list[int | None]]]) -> None:
        for device, zone_bytes, count, conventional, pointers in wanted:
            dump = read_dump(f"{self.devices[device]}.zones")
            assert (dump.geometry.zone_bytes, dump.geometry.nr_zones) == (zone_bytes, count), self.name
            assert int((dump.table["type"] == 1).sum()) == conventional, self.name
            found = [
                None if row["type"] == 1 else (int(row["wp_sector"]) - int(row["start_sector"])) * 512
                for row in dump.table
            ]
            assert found == pointers, self.name

    def _layout(self, wanted: str) -> None:
        assert {row["layout"] for row in self._document["devices"]} == {wanted}, self.name

    def _text(self, words: list[str]) -> None:
        for word in words:
            assert word in self._said, f"{self.name}: {self._said}"

    def _stdout_sha256(self, wanted: str) -> None:
        assert hashlib.sha256(self.result.raw).hexdigest() == wanted, self.name

    def _equal(self, wanted: dict[str, Any]) -> None:
        assert {key: self._document[key] for key in wanted} == wanted, self.name

    def _most(self, wanted: dict[str, int]) -> None:
        assert all(self._document[key] <= value for key, value in wanted.items()), self.name

    def _metrics(self, wanted: dict[str, int]) -> None:
        found: dict[str, float] = {}
        for line in self.result.out.splitlines():
            if line.startswith("zoned_dm_zoned_"):
                name, _, value = line.removeprefix("zoned_dm_zoned_").rpartition(" ")
                found[_without_labels(name)] = float(value)
        assert {key: found.get(key) for key in wanted} == wanted, self.name

    def _newest(self, wanted: tuple[int, int]) -> None:
        newest = self._document["rings"][0]["newest_valid"]
        assert [newest["generation"], newest["offset_bytes"]] == list(wanted), self.name

    def bounded(self, case: dict[str, Any], run: Run) -> None:
        """The lost ranges are between two lists, and everything else is that of the undamaged export."""
        lost = self._lost_ranges()
        lost_bytes = {at for offset, length in lost for at in range(offset, offset + length, 512)}
        for name in ("least", "most"):
            bound = {at for offset, length in self.step[name] for at in range(offset, offset + length, 512)}
            assert bound <= lost_bytes if name == "least" else lost_bytes <= bound, (self.name, lost)
        whole = self.folder / "whole"
        whole.mkdir()
        _unpack_base(case, whole)
        clean, out = bytearray(_export([whole / name for name in case["files"]], run)), bytearray(self.out.read_bytes())
        assert hashlib.sha256(clean).hexdigest() == self.step["clean_sha256"], self.name
        for content in (clean, out):
            for offset, length in lost:
                content[offset : offset + length] = bytes(length)
        assert clean == out, self.name


def _export(devices: Sequence[Path], run: Run) -> bytes:
    out = devices[0].with_name("OUT")
    run(["zoned", "export", *map(str, devices), "-o", str(out), "-q"])
    return out.read_bytes()


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _without_labels(name: str) -> str:
    """A metric's name with the label of its kind alone."""
    base, brace, labels = name.partition("{")
    kept = [label for label in labels.rstrip("}").split(",") if label.startswith("kind=")] if brace else []
    return f"{base}{{{','.join(kept)}}}" if kept else base


def main(names: Sequence[str]) -> int:
    """Play cases with the installed program; say which hold."""
    failed = 0
    for name in names or CASES:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            build(CASES[name], Path(folder))
            try:
                play(CASES[name], Path(folder), call_installed)
                print(f"{name}: holds")
            except Exception as error:  # noqa: BLE001 - whatever is not as it should be
                failed += 1
                print(f"{name}: {type(error).__name__} {str(error)[:600]}")
    return int(bool(failed))


def call_installed(words: Sequence[str]) -> Result:
    """Run a program of this environment as a process."""
    from tests.programs import Result

    program = str(Path(sys.executable).with_name(words[0]))  # the installed script
    done = subprocess.run([program, *words[1:]], capture_output=True, check=False)
    out, err = (raw.decode(errors="replace") for raw in (done.stdout, done.stderr))
    return Result(done.returncode, out, err, done.stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
