"""A package that is broken stops nobody but who names it, and every complaint says whose fault it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import zoned_tools
from tests.formats.plugin.conftest import Install
from tests.programs import Program
from zoned_tools.errors import LayoutError, LayoutWarning

CANNOT_BE_LOADED = {
    "runtime": ("raise RuntimeError('boom\\nsecond line')", "cannot be loaded: RuntimeError: boom second line"),
    "import": ("import no_such_module_at_all", "cannot be loaded: ModuleNotFoundError: No module named"),
    "syntax": ("def (:", "cannot be loaded: SyntaxError"),
    "exit": ("raise SystemExit(3)", "cannot be loaded: SystemExit: 3"),
    "nothing": ("", "cannot be loaded: AttributeError"),
    "number": ("LAYOUT = 5", "is an int, not a Layout"),
}

MISDECLARED = {
    "control": ("KW['name'] = 'a\\x1b[31mb\\nc'", "has an impossible name: 'a\\x1b[31mb\\nc'"),
    "dotted": ("KW['name'] = 'small.x'", "has an impossible name: 'small.x'"),
    "no_name": ("KW['name'] = None", "has an impossible name: None"),
    "no_probe": ("KW['probe'] = None", "has None as probe"),
    "no_rules": ("KW['rules'] = None", "has None as rules"),
    "table_line": ("KW['table_line'] = 5", "has an int as table_line"),
    "rules_raise": ("def rules(): raise OSError(5, 'gone')\nKW['rules'] = rules", "cannot be loaded: OSError"),
    "rules_other": ("RULES.layout = 'dm-zoned'", "its rules are those of 'dm-zoned'"),
    "settings": ("KW['settings'] = [5]", "a list instead of tuple"),
    "setting": ("KW['settings'] = (number('a b', 'x', *Journey),)", "'a b' as the name of a setting"),
    "default": ("KW['settings'] = (number('n', 'x', *Journey, default='z'),)", "n=z is not possible"),
    "letter": ("KW['roles'] = (ZoneRole('r', 'TT', '#000000'),)", "'TT' as the letter of a role"),
    "colour": ("KW['roles'] = (ZoneRole('r', 'T', '#000000\" x=\"y'),)", "as a colour"),
    "ours": (
        "RULES = Rules('zonefs', {})\nKW['name'] = 'zonefs'",
        "is named zonefs, as that of the package zoned_tools",
    ),
}


@pytest.mark.parametrize("case", CANNOT_BE_LOADED)
def test_what_cannot_be_loaded_is_passed_over(
    case: str, install_small: Install, small_drive: Path, our_drive: Path, zoned: Program
) -> None:
    """The status is that without the package; once in the process there is a line about it."""
    code, complaint = CANNOT_BE_LOADED[case]
    module = f"zoned_load_{case}"
    install_small(module, code, before="")
    named = f"the layout {module} of the package {module.replace('_', '-')} "
    result = zoned("check", small_drive, our_drive)
    assert result.status == 8
    assert result.out == f"{our_drive}: zonefs: clean\n"
    warning, unknown = result.err.splitlines()
    assert warning.startswith(f"zoned: warning: {named}{complaint}")
    assert warning.endswith("; it is passed over")
    assert unknown == f"zoned: {small_drive}: no layout is recognised (--layout NAME forces one)"
    assert zoned("probe", small_drive).err == "", "it was said already"
    for words in (("check", "--layout", module, small_drive), ("explain", f"{module}.bad")):
        refused = zoned(*words)
        assert (refused.status, refused.out) == (16, "")
        assert refused.err.startswith(f"zoned: {named}{complaint}")
        assert len(refused.err.splitlines()) == 1


@pytest.mark.parametrize("case", MISDECLARED)
def test_what_is_no_layout_is_passed_over(
    case: str, install_small: Install, small_drive: Path, our_drive: Path, zoned: Program
) -> None:
    code, complaint = MISDECLARED[case]
    install_small(f"zoned_form_{case}", f"{code}\nLAYOUT = Layout(**KW)")
    result = zoned("probe", small_drive, our_drive)
    assert result.status == 0
    assert result.out.splitlines()[1].startswith(f"{our_drive}: host-managed, emulated: zonefs")
    assert complaint in result.err
    assert len(result.err.splitlines()) == 1
    assert result.err.startswith(
        f"zoned: warning: the layout zoned_form_{case} of the package zoned-form-{case.replace('_', '-')} "
    )


def test_naming_one_says_it_once(install_small: Install, small_drive: Path, zoned: Program) -> None:
    install_small("zoned_once", "LAYOUT = 5", before="")
    result = zoned("check", "--layout", "zoned_once", small_drive)
    assert result.status == 16
    assert result.err == "zoned: the layout zoned_once of the package zoned-once is an int, not a Layout\n"


def test_of_two_packages_with_one_name_the_first_counts(
    install_small: Install, small_drive: Path, zoned: Program
) -> None:
    install_small("zoned_two_b", "KW['inspect'] = lambda target: {'from': 'b'}\nLAYOUT = Layout(**KW)")
    install_small("zoned_two_a", "KW['inspect'] = lambda target: {'from': 'a'}\nLAYOUT = Layout(**KW)")
    result = zoned("inspect", "--json", small_drive)
    assert (result.status, result.json["from"]) == (0, "a")
    assert result.err == (
        "zoned: warning: the layout zoned_two_b of the package zoned-two-b is named small, "
        "as that of the package zoned-two-a; it is passed over\n"
    )


def test_damaged_entry_points_hide_nothing_of_ours(
    install_small: Install, small_drive: Path, our_drive: Path, zoned: Program, tmp_path: Path
) -> None:
    install_small("zoned_damaged")
    (facts,) = (tmp_path / "site").glob("*.dist-info")
    (facts / "entry_points.txt").write_text("[zoned_tools.layouts]\nno equals sign\n")
    result = zoned("check", small_drive, our_drive)
    assert (result.status, result.out) == (8, f"{our_drive}: zonefs: clean\n")
    assert len(result.err.splitlines()) == 2


# -- rooms

PROBES = {
    "raises": "def probe(device, start): raise RuntimeError('probe boom')",
    "exits": "def probe(device, start): raise SystemExit(3)",
    "text": "def probe(device, start): return 'small'",
    "other": "def probe(device, start): return Identity('nosuch')",
    "ours": "def probe(device, start): return Identity('dm-zoned')",
    "device": "def probe(device, start): device.read(1 << 60, 4096)",
    "odd": "def probe(device, start): return Identity(NAME, label=5)",
}


@pytest.mark.parametrize("case", PROBES)
def test_a_probe_that_fails_recognises_nothing(
    case: str, install_small: Install, small_drive: Path, our_drive: Path, zoned: Program
) -> None:
    install_small(f"zoned_probe_{case}", f"{PROBES[case]}\nKW['probe'] = probe\nLAYOUT = Layout(**KW)")
    result = zoned("check", small_drive, our_drive)
    assert (result.status, result.out) == (8, f"{our_drive}: zonefs: clean\n")
    warning, unknown = result.err.splitlines()
    assert warning.startswith(f"zoned: warning: the layout small of the package zoned-probe-{case}: probe ")
    assert unknown.endswith("no layout is recognised (--layout NAME forces one)")
    assert zoned("check", "--layout", "small", small_drive).status == 4, "it can be named"


CHECKS = {
    "raises": ("def check(t, o): raise RuntimeError('check boom')", "check failed: RuntimeError: check boom"),
    "exits": ("def check(t, o): raise SystemExit(0)", "check failed: SystemExit: 0"),
    "none": ("def check(t, o): return None", "check gave None instead of Evidence"),
    "empty": ("def check(t, o): return []", "check gave a list instead of Evidence"),
    "code": ("def check(t, o): RULES.finding('nosuch')", "check failed: KeyError: 'nosuch'"),
    "foreign": (
        (
            "OTHER = Rules('dm-zoned', {'x': Rule(Severity.ERROR, 'x')})\n"
            "def check(t, o):\n    e = Evidence(t); e.findings.add(OTHER.finding('x')); return e"
        ),
        "check gave the code 'dm-zoned.x', which its rules do not have",
    ),
    "column": (
        (
            "def check(t, o):\n    e = Evidence(t)\n"
            "    e.findings.add(RULES.findings('bad', 'at {nowhere}', block=[1])); return e"
        ),
        "check failed: KeyError: 'nowhere'",
    ),
    "stopped": (
        "def check(t, o): raise NothingToCheckError('nothing', type('E', (), {'target': t}))",
        "check gave a type instead of Evidence",
    ),
    "order": ("KW['order_members'] = lambda members: None", "order_members gave None instead of Sequence"),
    "members": ("KW['order_members'] = lambda members: []", "order_members gave other members than it was given"),
}


@pytest.mark.parametrize("case", CHECKS)
def test_a_check_that_fails_is_one_targets_outcome(
    case: str, install_small: Install, small_drive: Path, our_drive: Path, zoned: Program
) -> None:
    code, complaint = CHECKS[case]
    with small_drive.open("r+b") as file:
        file.seek(8)
        file.write(b"group")
    code = f"{code}\nKW['check'] = check\nLAYOUT = Layout(**KW)"
    install_small(f"zoned_check_{case}", code)
    result = zoned("check", small_drive, our_drive)
    assert (result.status, result.out) == (8, f"{our_drive}: zonefs: clean\n")
    assert f"{small_drive}: the layout small of the package zoned-check-{case}: {complaint}" in result.err
    assert len(result.err.splitlines()) == 1
    document = zoned("check", "--json", small_drive, our_drive).json
    rows = {row["devices"][0]: row for row in document["devices"]}
    assert rows[str(small_drive)]["verdict"] == "failed"
    assert complaint in json.dumps(rows[str(small_drive)], ensure_ascii=False).replace('\\"', '"')
    assert rows[str(our_drive)]["verdict"] == "clean"


REPAIRS = {
    "none": ("def plan_repair(e, c): return None", "plan_repair gave None instead of RepairPlan"),
    "asks": (
        "def plan_repair(e, c): return RULES.action('dull', 'x', consent=Consent.LOSES)",
        "plan_repair failed: ValueError: small.dull: an action asks for consent, its rule does not",
    ),
    "device": (
        "def plan_repair(e, c):\n    p = RepairPlan(Plan('x')); p.plan.write(3, 0, b''); return p",
        "plan_repair gave the number 3",
    ),
    "late": (
        (
            "def plan_repair(e, c):\n    p = RepairPlan(Plan('x'))\n"
            "    p.plan.steps.append(Produce(0, 4096, 4096, lambda: 1 / 0)); return p"
        ),
        "a step of its plan failed: ZeroDivisionError",
    ),
}


@pytest.mark.parametrize("case", REPAIRS)
def test_a_repair_that_fails_is_one_targets_outcome(
    case: str, install_small: Install, small_drive: Path, our_drive: Path, zoned: Program
) -> None:
    code, complaint = REPAIRS[case]
    install_small(f"zoned_repair_{case}", f"{code}\nKW['plan_repair'] = plan_repair\nLAYOUT = Layout(**KW)")
    before = small_drive.read_bytes()
    result = zoned("check", "--repair", "--allow", "small.bad", small_drive, our_drive)
    assert result.status == 8
    assert f"{our_drive}: zonefs: clean\n" in result.out
    assert complaint in result.err
    assert small_drive.read_bytes() == before


STEPS = (
    "Write(0, 0, 'text')",
    "Write(0, -1, b'')",
    "Fill(0, 0, 4096, 1 << 16)",
    "Copy(0, None, 0, 4096)",
    "ManageZones(0, 'reset', 0)",
    "ManageZones(0, __import__('zoned_tools.device.base').device.base.ZoneOperation.RESET, 1.5)",
    "ZoneFlags(0, 'z')",
    "Produce(0, 0, None, bytes)",
    "Flush('0')",
    "'a step'",
)


def test_every_kind_of_step_is_looked_at(install_small: Install, small_drive: Path) -> None:
    """What is wrong with a plan is found before anything of it is carried out."""
    steps = ", ".join(STEPS)
    install_small(
        "zoned_steps",
        f"STEPS = [{steps}]\n"
        "def plan_repair(e, c):\n    return RepairPlan(Plan('x', [STEPS[e.target.device.read(16, 1)[0]]]))\n"
        "KW['plan_repair'] = plan_repair\nLAYOUT = Layout(**KW)",
    )
    for number in range(len(STEPS)):
        with small_drive.open("r+b") as file:
            file.seek(16)
            file.write(bytes([number]))
        with zoned_tools.open_target(small_drive) as target:
            evidence = target.check()
            with pytest.raises(LayoutError, match="plan_repair gave"):
                target.plan_repair(evidence)


COMMANDS = {
    "inspect_none": ("KW['inspect'] = lambda t: None", ("inspect",), "inspect gave None instead of dict"),
    "inspect_set": ("KW['inspect'] = lambda t: {'a': [{1}]}", ("inspect", "--json"), "inspect gave a set as 'a'"),
    "inspect_key": ("KW['inspect'] = lambda t: {5: 1}", ("inspect", "--json"), "inspect gave an int instead of str"),
    "inspect_nan": ("KW['inspect'] = lambda t: {'a': float('nan')}", ("inspect", "--json"), "inspect gave a float"),
    "inspect_own": (
        "KW['inspect'] = lambda t: {'schema': 'x'}",
        ("inspect", "--json"),
        "inspect gave the key 'schema'",
    ),
    "dump_none": ("KW['dump'] = lambda t: None", ("dump",), "dump gave None instead of dict"),
    "dump_bytes": ("KW['dump'] = lambda t: {'a': b'x'}", ("dump",), "dump gave a bytes as 'a'"),
    "table": ("KW['table_line'] = lambda t, s: None", ("table",), "table_line gave None instead of TableLine"),
    "lines": ("KW['table_line'] = lambda t, s: TableLine('a\\nb')", ("table",), "table_line gave text with control"),
    "mapper": (
        "KW['open_mapper'] = lambda t, *, writable, settings: None",
        ("map",),
        "open_mapper gave None, which has no read, instead of a mapper",
    ),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_room_that_fails_is_named(case: str, install_small: Install, small_drive: Path, zoned: Program) -> None:
    code, words, complaint = COMMANDS[case]
    install_small(f"zoned_room_{case}", f"{code}\nLAYOUT = Layout(**KW)")
    result = zoned(*words, small_drive)
    assert result.status == 8
    if "--json" in words:
        assert result.json.keys() == {"schema", "exit_status", "errors"}
    else:
        assert result.out == ""
    assert (
        f"{small_drive}: the layout small of the package zoned-room-{case.replace('_', '-')}: {complaint}" in result.err
    )
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("given", ["None", "{'other': __import__('numpy').zeros(1, int)}", "{'r': [1, 2]}"])
def test_a_picture_is_drawn_without_roles_that_cannot_be_had(
    given: str, install_small: Install, small_drive: Path, zoned: Program
) -> None:
    code = f"KW.update(roles=(ZoneRole('r', 'T', '#000000'),), zone_roles=lambda t: {given})\nLAYOUT = Layout(**KW)"
    install_small("zoned_roles", code)
    result = zoned("diagram", small_drive)
    assert (result.status, result.out.splitlines()[0]) == (0, f"{small_drive}: small")
    assert "zone_roles gave" in result.err


def test_claims_that_fail_are_none(install_small: Install, small_drive: Path, zoned: Program, tmp_path: Path) -> None:
    install_small("zoned_claims", "KW['claims'] = lambda probed: 1 / 0\nLAYOUT = Layout(**KW)")
    other = tmp_path / "other.img"
    other.write_bytes(small_drive.read_bytes())
    result = zoned("check", small_drive, other)
    assert result.status == 4
    assert "claims failed: ZeroDivisionError" in result.err


def test_a_test_of_a_value_that_fails_refuses_the_value(
    install_small: Install, small_drive: Path, zoned: Program
) -> None:
    code = "KW['settings'] = (text('n', 'x', *Journey, verify=lambda t: 1 / 0),)\nLAYOUT = Layout(**KW)"
    install_small("zoned_verify", code)
    result = zoned("check", "--set", "n=5", small_drive)
    assert (result.status, result.out) == (16, "")
    assert "n=5 is not possible: the layout small of the package zoned-verify: n: ZeroDivisionError" in result.err


# -- what works, as a layout of ours


def test_allow_and_explain_know_the_codes(
    install_small: Install, small_drive: Path, our_drive: Path, zoned: Program
) -> None:
    install_small("zoned_codes")
    check = ("check", "--repair", "--dry-run")
    waits = zoned(*check, small_drive, our_drive)
    assert (waits.status, "it waits for --allow small.bad" in waits.out) == (4, True)
    agreed = zoned(*check, "--allow", "small.bad", small_drive, our_drive)
    assert agreed.status == 4, "a dry run leaves the error"
    assert "waits" not in agreed.out
    for word, complaint in (
        ("small.nosuch", "small has no finding 'nosuch'"),
        ("zonefs.nosuch", "zonefs has no finding 'nosuch'"),
        ("dm-zoned.nosuch", "dm-zoned has no finding 'nosuch'"),
        ("nosuch.bad", "has no finding 'nosuch.bad'"),
    ):
        for drives in ((small_drive, our_drive), (our_drive, small_drive)):
            refused = zoned(*check, "--allow", word, *drives)
            assert (refused.status, refused.out) == (16, "")
            assert complaint in refused.err
    ids = [row["id"] for row in zoned("explain", "--json").json["codes"]]
    assert ids.index("small.bad") > ids.index("zonefs.sb-magic")
    assert zoned("explain", "small.bad").out.startswith("small.bad (error)\n")


def test_lists_and_bare_words_of_settings(install_small: Install, small_drive: Path, zoned: Program) -> None:
    """Split as those of ours are, from the declaration."""
    install_small(
        "zoned_words",
        "KW['settings'] = (text('parts', 'x', *Journey, kind='list'), switch('quick', 'x', *Journey, bare=True))\n"
        "def check(t, o):\n    e = Evidence(t); s = o.settings\n"
        "    e.facts.update(parts=s['parts'], quick=s.on('quick')); return e\n"
        "KW['check'] = check\nLAYOUT = Layout(**KW)",
    )
    (row,) = zoned("check", "--json", small_drive, "quick", "--set", "parts=a,b=1,c").json["devices"]
    assert row["facts"] == {"parts": "a,b=1,c", "quick": True}


def test_python_programs_are_warned_and_go_on(install_small: Install, small_drive: Path, our_drive: Path) -> None:
    install_small("zoned_python", "LAYOUT = 5", before="")
    with pytest.warns(LayoutWarning, match="package zoned-python is an int"):
        assert zoned_tools.probe(small_drive) is None
    found = zoned_tools.probe(our_drive)
    assert found is not None
    assert found.layout == "zonefs"
    with pytest.raises(zoned_tools.UsageError, match="package zoned-python is an int"):
        zoned_tools.open_target(our_drive, layout="zoned_python")


def test_python_programs_get_one_kind_of_error(install_small: Install, small_drive: Path) -> None:
    install_small("zoned_error", "def check(t, o): raise ValueError('x')\nKW['check'] = check\nLAYOUT = Layout(**KW)")
    with zoned_tools.open_target(small_drive) as target, pytest.raises(LayoutError, match="zoned-error") as caught:
        target.check()
    assert isinstance(caught.value.__cause__, ValueError)
    assert "zoned_error.py line" in caught.value.hint
