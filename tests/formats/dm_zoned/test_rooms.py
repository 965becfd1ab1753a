"""What the layout declares, and that declaring it costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.formats.dm_zoned.images import Images, corrupted, corruptions
from zoned_tools.device.plan import apply_plan
from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import CheckOptions, Consent, Journey, Target
from zoned_tools.formats.dm_zoned import LAYOUT
from zoned_tools.formats.dm_zoned.roles import zone_roles
from zoned_tools.formats.dm_zoned.rules import RULES

HEAVY = ("numpy", "construct", "rich", "crc32c", "xxhash")


def test_declaration_and_rules_are_light() -> None:
    code = (
        "import sys, zoned_tools.formats.dm_zoned as package; package.LAYOUT.rules();"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_every_code_is_described() -> None:
    assert all(rule.meaning for rule in RULES.values())
    assert set(RULES) >= {code for _, v in corruptions() for code, _ in v["findings"]}
    for rule in RULES.values():
        if rule.asks is not Consent.CERTAIN:
            assert rule.allow or "--use-set" in rule.repair or "--set" in rule.repair


def test_the_older_spelling_of_a_setting_is_accepted() -> None:
    for word in ("use-set", "use_set"):
        assert dict(LAYOUT.parse_settings({word: "1"}, Journey.CHECK)) == {"use-set": "1"}
        assert LAYOUT.parse_settings({word: "1"}, Journey.LOGICAL).number("use-set") == 1
    with pytest.raises(UsageError, match="no setting 'rlow' for check"):
        LAYOUT.parse_settings({"rlow": "1"}, Journey.CHECK)


def test_roles_are_declared(images: Images) -> None:
    target = images.target("hm64x1")
    roles = zone_roles(target)
    assert set(roles) == {role.name for role in LAYOUT.roles}
    survey = LAYOUT.check(target, CheckOptions()).chosen
    named = sorted([*roles["data"].tolist(), *roles["buffer"].tolist()])
    assert named == survey.map.owners.named.nonzero()[0].tolist()


def test_private_keys_hide_every_spelling_of_the_label(images: Images) -> None:
    base, variant = corruptions()[0]
    document = LAYOUT.dump(corrupted(images, base, variant)) if LAYOUT.dump is not None else {}
    rows = document["super_blocks"]
    assert isinstance(rows, list)
    assert {"label", "label_tail"} <= LAYOUT.private_keys
    assert not {"dmz_uuid", "dev_uuid"} & LAYOUT.private_keys  # not private, and needed to restore
    assert all(isinstance(row, dict) and "label" in row for row in rows)


def test_format_room(images: Images) -> None:
    target = images.target("hm64x1")
    settings = LAYOUT.parse_settings(
        {"label": "new", "seq": "5", "uuid": "7f801397-b5cc-4016-acb3-f146bfac620f"}, Journey.FORMAT
    )
    assert LAYOUT.plan_format is not None
    plan = LAYOUT.plan_format(target, settings)
    apply_plan(target.devices, plan.steps)
    facts = LAYOUT.check(Target("dm-zoned", target.devices), CheckOptions()).facts
    assert (facts["label"], facts["uuid"]) == ("new", "7f801397-b5cc-4016-acb3-f146bfac620f")
