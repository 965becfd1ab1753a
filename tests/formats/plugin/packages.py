"""Installed packages: what pip leaves of them in a directory that Python looks into."""

from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path

GROUP = "zoned_tools.layouts"

SMALL = """
from zoned_tools.device.plan import *
from zoned_tools.formats.contract import *
from zoned_tools.formats.shared.settings import *

NAME = "small"
RULES = Rules(
    NAME,
    {
        "bad": Rule(Severity.ERROR, "It is bad.", "A test.", "mends it", asks=Consent.LOSES),
        "dull": Rule(Severity.WARNING, "It is dull.", "A test.", "polishes it"),
    },
)


def probe(device, start_bytes):
    raw = device.read(start_bytes, 4096)
    return Identity(NAME, group=raw[8:16].decode().rstrip("\\0")) if raw[:5] == b"SMALL" else None


def check(target, options):
    evidence = Evidence(target)
    evidence.findings.add(RULES.finding("bad", "it is bad at block {7}", block=7))
    return evidence


def plan_repair(evidence, consents):
    plan = RepairPlan(Plan("mend it"))
    action = RULES.action("bad", "it is mended", consent=Consent.LOSES, agreed="bad" in consents.allow)
    if not plan.add(action).waits:
        plan.plan.steps.append(Produce(0, 4096, 4096, lambda: b"M" * 4096))
    return plan


KW = dict(
    name=NAME,
    summary="a small layout",
    probe=probe,
    rules=lambda: RULES,
    check=check,
    plan_repair=plan_repair,
    inspect=lambda target: {"block": 7},
)
"""
"""A layout of few words, without its last line: tests say what is wrong with it."""


def describe_package(site: Path, name: str, points: dict[str, str]) -> None:
    """The directory with a package's name and its entry points of :data:`GROUP`."""
    facts = site / f"{name.replace('-', '_')}-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{GROUP}]", *(f"{point} = {value}" for point, value in points.items())]
    (facts / "entry_points.txt").write_text("\n".join(lines) + "\n")


def install(package: Path, site: Path) -> None:
    """A package that has a pyproject.toml."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    name = str(project["name"])
    module = name.replace("-", "_")
    shutil.copytree(package / module, site / module)
    describe_package(site, name, project["entry-points"][GROUP])


def install_module(site: Path, module: str, code: str) -> None:
    """A package of one module whose ``LAYOUT`` is an entry point of the module's name."""
    describe_package(site, module.replace("_", "-"), {module: f"{module}:LAYOUT"})
    (site / f"{module}.py").write_text(code)


def with_packages(site: Path) -> dict[str, str]:
    """The environment of a Python that finds the packages in a directory."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))}
