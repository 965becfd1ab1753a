"""``zoned zdm``: what Seagate's zdm-status, zdm-zones and zdm-report showed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from zoned_tools.cli.lazy import new_app
from zoned_tools.cli.options import DevicePath, Json, Start
from zoned_tools.cli.output import print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.zdm.open import State

app = new_app("Status, zone counters and drive zones of a ZDM.")

_COLUMNS = 5


@contextmanager
def _state(path: str, start: int | None) -> Iterator[State]:
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.formats.zdm.constants import NAME
    from zoned_tools.formats.zdm.open import load

    with opened_target([path], start, NAME if start is not None else None) as target:
        yield load(target)


@app.command("status")
def status(device: DevicePath, start: Start = None, json: Json = False) -> int:
    """Print used, available and discarded blocks, cache and journal pages."""
    from zoned_tools.formats.zdm.inspect import status as figures

    with _state(device, start) as state:
        values = figures(state)
        current = state.current
        facts: dict[str, object] = {
            "generation": current.generation if current else None,
            "dirty": current.dirty if current else False,
        }
    if json:
        print_json({"schema": "zoned.zdm.status/1", "device": device, **facts, **values})
        return 0
    lines = {
        "On device": f"{values['used']} used, {values['available']} available, {values['discard']} discarded",
        "Data Zones": values["zones"],
        "Empty Zones": values["empty_zones"],
        "Cached Pages": values["map_pages"],
        "Discard Pages": values["discard_pages"],
        "Journal Pages": values["journal_pages"],
        "Journal InUse": f"{values['journal_in_use']} / {values['journal_slots']}",
    }
    print("\n".join(f"{name + ':':<15}{value}" for name, value in lines.items()))
    return 0


@app.command("zones")
def zones(device: DevicePath, start: Start = None, json: Json = False) -> int:
    """Print the write pointer and free estimate of every data zone."""
    with _state(device, start) as state:
        wp, zf = state.wp.tolist(), state.zf.tolist()
    if json:
        rows = [
            {
                "zone": number,
                "wp_blocks": pointer & 0xFFFFFF,
                "flags": pointer >> 24,
                "free_estimate": free & 0xFFFFFF,
                "stream": free >> 24,
            }
            for number, (pointer, free) in enumerate(zip(wp, zf, strict=True))
        ]
        print_json({"schema": "zoned.zdm.zones/1", "device": device, "zones": rows})
        return 0
    cells = [
        f"{number:>6} {pointer >> 24:02x} {pointer & 0xFFFFFF:>6x} {free & 0xFFFFFF:>6}"
        for number, (pointer, free) in enumerate(zip(wp, zf, strict=True), 1)
    ]
    print("\n".join(" ".join(cells[at : at + _COLUMNS]) for at in range(0, len(cells), _COLUMNS)))
    return 0


@app.command("report")
def report(device: DevicePath, json: Json = False) -> int:
    """Print the zones of the drive with their conditions and types."""
    from zoned_tools.device.opening import open_device
    from zoned_tools.device.zones import CONDITION_NAMES, TYPE_NAMES
    from zoned_tools.errors import DeviceError

    with open_device(device) as drive:
        if not drive.geometry.is_zoned:
            raise DeviceError("not a zoned device", device=device)
        table = drive.zones()
    if json:
        import json as decoder

        import numpy as np

        from zoned_tools.report.zones import json_lines

        rows = [decoder.loads(line) for line in json_lines(table, np.arange(len(table)))]
        print_json({"schema": "zoned.zdm.report/1", "device": device, "zones": rows})
        return 0
    conditions = CONDITION_NAMES
    fields = ("start_sector", "length_sectors", "wp_sector", "reset", "non_seq", "condition", "type")
    lines = [
        f"start: {start:#x}, len {length:#x}, wp {pointer:#x}, reset:{reset} non-seq:{non_seq}, "
        f"cond: {condition}({conditions.get(condition, 'reserved')}) type: {kind}({TYPE_NAMES.get(kind, 'unknown')})"
        for start, length, pointer, reset, non_seq, condition, kind in zip(
            *(table[name].tolist() for name in fields), strict=True
        )
    ]
    print("\n".join(lines))
    return 0
