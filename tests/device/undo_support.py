"""A drive, a plan that changes it, and playing its undo file back."""

from __future__ import annotations

import hashlib
import json
import zipfile
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.base import Geometry, ZoneOperation
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.plan import Plan, apply_plan
from zoned_tools.device.undo import UndoFile, save_undo
from zoned_tools.device.undo_format import WRITTEN
from zoned_tools.device.zones import Model, ZoneType, make_table

if TYPE_CHECKING:
    from pathlib import Path

ZONE = 64 << 10
ZONES = 8


def make(folder: Path, name: str = "disk.img", *, zones: int = ZONES, zone: int = ZONE, aware: bool = False) -> str:
    path = str(folder / name)
    model = Model.HOST_AWARE if aware else Model.HOST_MANAGED
    kind = ZoneType.SEQ_PREFERRED if aware else ZoneType.SEQ_REQUIRED
    table = make_table(zones * zone // 512, zone // 512, nr_conventional=3, sequential_type=kind)
    create_image(path, Geometry(model, zones * zone, zone, zones), table)
    with open_image(path, writable=True) as drive:
        drive.write(0, (bytes(range(256)) * 512)[: 3 * zone])
        drive.write(3 * zone, b"three" * 4096)
        drive.write(4 * zone, b"4" * zone)
    return path


def a_plan() -> Plan:
    plan = Plan("change everything")
    plan.write(0, 4096, b"n" * 8192)
    plan.manage(0, ZoneOperation.RESET, 4)
    plan.write(0, 4 * ZONE, b"new content of four" + bytes(4096 - 19))
    plan.manage(0, ZoneOperation.FINISH, 6)
    return plan


def state(path: str) -> tuple[bytes, list[list[int]]]:
    with open_image(path) as drive:
        zones = drive.zones()
        facts = [zones[name].tolist() for name in ("condition", "wp_sector", "non_seq", "reset")]
        return drive.read(0, drive.geometry.size_bytes), facts


def saved(path: str, undo: str, plan: Plan | None = None, **facts: str) -> None:
    with open_image(path, writable=True) as drive:
        plan = plan or a_plan()
        save_undo(undo, [drive], plan, **facts)
        apply_plan([drive], plan.steps)


def play(path: str, undo: str, *, force: bool = False, identity: str = "") -> None:
    with open_image(path, writable=True) as drive, UndoFile(undo) as file:
        views = file.views([drive])
        file.check(views, force=force, identity=identity)
        apply_plan(views, file.steps(views))


def first_version(path: str, undo: str) -> None:
    """As earlier releases wrote it."""
    with open_image(path, writable=True) as drive, zipfile.ZipFile(undo, "w", zipfile.ZIP_DEFLATED) as archive:
        header = {
            "schema": "zoned.undo/1",
            "title": "change everything",
            "identity": "",
            "devices": [{"path": path, "start_bytes": 0, "size_bytes": ZONES * ZONE, "model": "host-managed"}],
            "sequential_zones": [[0, 4], [0, 6]],
        }
        archive.writestr("header.json", json.dumps(header))
        rows = [(0, 4096, at, hashlib.sha256(b"n" * 4096).digest()) for at in (4096, 8192)]
        archive.writestr("written", np.array(rows, WRITTEN).tobytes())
        with open(path + ".zones", "rb") as table:
            archive.writestr("zones/0", table.read())
        archive.writestr("data/0/4096", drive.read(4096, 8192))
        archive.writestr(f"data/0/{4 * ZONE}", drive.read(4 * ZONE, ZONE))
        apply_plan([drive], a_plan().steps)
