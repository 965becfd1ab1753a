"""Figures of drives and layouts for monitoring."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.identity import identify
from zoned_tools.device.zones import SECTOR_BYTES, condition_name, type_name, written_sectors
from zoned_tools.engine.checking import complete
from zoned_tools.engine.opening import opened_targets
from zoned_tools.errors import FsckStatus, ZonedError
from zoned_tools.formats import registry
from zoned_tools.formats.contract import CheckOptions, Probed, Severity, Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one metric; ``labels`` never holds zone numbers, which would be too many series.

    ``help`` is empty for the metrics of :data:`HELP`.
    """

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float
    help: str = ""


HELP = {
    "zoned_device_info": "A drive and the layout on it.",
    "zoned_device_up": "1 when the drive could be read.",
    "zoned_device_size_bytes": "Capacity of the drive.",
    "zoned_zone_size_bytes": "Size of a zone.",
    "zoned_zones": "Zones by type and condition.",
    "zoned_written_bytes": "Bytes below the write pointers of sequential zones.",
    "zoned_max_open_zones": "Most zones that may be open, 0 for no limit.",
    "zoned_max_active_zones": "Most zones that may be active, 0 for no limit.",
    "zoned_check_exit_status": "fsck(8) status of the last check.",
    "zoned_check_findings": "Findings of the last check by severity.",
    "zoned_check_duration_seconds": "How long the last check took.",
    "zoned_check_timestamp_seconds": "When the last check ended.",
}
"""Metric name to help text, in the order of output; the layouts' own follow. All are gauges."""


def collect(
    paths: Sequence[str], *, check: bool = False, start_sector: int | None = None
) -> tuple[list[Sample], list[ZonedError]]:
    """Samples of every device that can be read, and what is wrong: devices that cannot be get ``zoned_device_up 0``.

    A target whose metadata give no figures is wrong, too; its drives are up.
    """
    without: list[ZonedError] = []
    with opened_targets(paths, start_sector) as opened:
        errors = {path: failure.error for failure in opened.failed for path in failure.paths}
        samples: list[Sample] = []
        for probed in opened.probed:
            try:
                samples += list(_device_samples(probed))
            except ZonedError as error:
                errors[probed.device.path] = error
        for target in opened.targets:
            try:
                samples += list(_figures(target))
            except ZonedError as error:
                without.append(error)
            if check:
                samples += _check_samples(target)
    up = [Sample("zoned_device_up", (("device", path),), int(path not in errors)) for path in paths]
    return [*up, *samples], [errors[path] for path in paths if path in errors] + without


def _device_samples(probed: Probed) -> Iterator[Sample]:
    device, identity = probed.device, probed.identity
    geometry = device.geometry
    who = identify(device.path)
    name = (("device", device.path),)
    yield Sample(
        "zoned_device_info",
        (
            *name,
            ("model", str(geometry.model)),
            ("serial", who.serial),
            ("layout", identity.layout if identity else ""),
            ("label", identity.label if identity else ""),
            ("uuid", identity.uuid if identity else ""),
        ),
        1,
    )
    yield Sample("zoned_device_size_bytes", name, geometry.size_bytes)
    if not geometry.is_zoned:
        return
    table = device.zones()
    counts = Counter(zip(table["type"].tolist(), table["condition"].tolist(), strict=True))
    for (kind, condition), number in sorted(counts.items()):
        yield Sample(
            "zoned_zones", (*name, ("type", type_name(kind)), ("condition", condition_name(condition))), number
        )
    written = written_sectors(table)
    yield Sample("zoned_zone_size_bytes", name, geometry.zone_bytes)
    yield Sample("zoned_written_bytes", name, float(np.maximum(written, 0).sum()) * SECTOR_BYTES)
    yield Sample("zoned_max_open_zones", name, geometry.max_open_zones)
    yield Sample("zoned_max_active_zones", name, geometry.max_active_zones)


def _figures(target: Target) -> Iterator[Sample]:
    """What a target's layout counts; the label ``device`` is that of its first device."""
    layout = registry.of(target)
    if layout.figures is None:
        return
    prefix = f"zoned_{layout.name.replace('-', '_')}_"
    for figure in layout.figures(target):
        labels = (("device", target.device.path), *figure.labels)
        yield Sample(prefix + figure.name, labels, figure.value, figure.help)


def _check_samples(target: Target) -> Iterator[Sample]:
    name = (("device", ",".join(target.paths)), ("layout", target.layout))
    started = time.monotonic()
    try:
        evidence = registry.of(target).check(target, CheckOptions())
        complete(evidence, CheckOptions())
        status = evidence.verdict.fsck_status
        counts = Counter({severity: evidence.findings.count(severity) for severity in Severity})
    except ZonedError as error:
        status, counts = error.fsck_status, Counter[Severity]()
    yield Sample("zoned_check_exit_status", name, int(FsckStatus(status)))
    for severity in Severity:
        yield Sample("zoned_check_findings", (*name, ("severity", str(severity))), counts[severity])
    yield Sample("zoned_check_duration_seconds", name, round(time.monotonic() - started, 3))
    yield Sample("zoned_check_timestamp_seconds", name, round(time.time()))
