"""The decoded metadata and its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.formats.inplace_compress.images import (
    EXPECTED,
    image_bytes,
    in_memory,
    target_of,
)
from zoned_tools.errors import UsageError
from zoned_tools.formats.inplace_compress.inspect import inspect
from zoned_tools.formats.inplace_compress.stat import statistics


def test_inspect_and_stat_agree(tmp_path: Path) -> None:
    target = target_of(in_memory(tmp_path, image_bytes("p3-lzo-64k")))
    tree, facts = inspect(target), statistics(target, 32)
    rows = EXPECTED["p3-lzo-64k"]["extents"]
    extents: Any = tree["extents"]
    assert [[e["block"], e["blocks"], e["payload_sectors"]] for e in extents] == [row[:3] for row in rows]
    assert facts["raw_extents"] == sum(row[3] == "raw" for row in rows)
    assert facts["stored_bytes"] == 512 * sum(row[2] for row in rows)
    assert facts["written_blocks"] == sum(row[1] for row in rows)
    assert facts["foreign_extents"] == 0
    assert statistics(target, 2)["foreign_extents"] != 0
    with pytest.raises(UsageError):
        statistics(target, 4)
