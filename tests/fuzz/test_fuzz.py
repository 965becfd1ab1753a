"""Some seconds of fresh inputs for each layout; ``ZONED_FUZZ_SECONDS`` and ``ZONED_FUZZ_SEED`` ask for others."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.fuzz import corpus
from tests.fuzz.run import fuzz
from tests.fuzz.subjects import LAYOUTS

SECONDS = float(os.environ.get("ZONED_FUZZ_SECONDS", "3"))
SEED = int(os.environ.get("ZONED_FUZZ_SEED", "1"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_properties_hold_over_fresh_inputs(layout: str, record_property: Callable[[str, object], None]) -> None:
    tally = fuzz(layout, SEED, seconds=SECONDS, inputs=1 << 40)
    record_property(f"fuzzer inputs, {layout}", tally.inputs)
    known = corpus.known_signatures(layout)
    fresh = {
        signature: f"{text}\n{given.dumps()}"
        for signature, (given, text) in tally.examples.items()
        if signature not in known
    }
    assert not fresh, "\n".join(fresh.values())
    assert tally.inputs
    assert tally.codes
