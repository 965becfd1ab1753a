"""Prometheus text exposition format, as node_exporter's textfile collector reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.device.files import replace_file
from zoned_tools.engine.metrics import HELP, Sample
from zoned_tools.errors import DeviceError
from zoned_tools.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence


def _escape(text: str) -> str:
    return visible(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render(samples: Sequence[Sample]) -> str:
    """All samples, grouped by metric with HELP and TYPE; ends with a newline."""
    lines: list[str] = []
    helps = HELP | {sample.name: sample.help for sample in samples if sample.name not in HELP}
    for name, text in helps.items():
        rows = [sample for sample in samples if sample.name == name]
        if not rows:
            continue
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        for sample in rows:
            labels = ",".join(f'{key}="{_escape(value)}"' for key, value in sample.labels)
            value = int(sample.value) if float(sample.value).is_integer() else sample.value
            lines.append(f"{name}{{{labels}}} {value}")
    return "\n".join(lines) + "\n"


def write_atomically(path: str, text: str) -> None:
    """Replace ``path`` by a rename in its own directory, so that a collector never reads half of it."""
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot write") from None
