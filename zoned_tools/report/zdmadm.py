"""What zdmadm prints, in the original's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.report.check import outcome_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zoned_tools.engine.checking import Outcome
    from zoned_tools.formats.zdm.superblock import SuperBlock


def probe_lines(identity: SuperBlock, path: str) -> Iterator[str]:
    """An identity."""
    yield from _identity_lines(identity, path)
    yield "---"
    yield from _run_time_lines(identity)


def _identity_lines(identity: SuperBlock, path: str) -> Iterator[str]:
    start = identity.data_start
    trim = ("ON+raid5" if identity.discard >> 16 else "ON") if identity.discard & 1 else "OFF"
    yes = {False: "No", True: "Yes"}
    aware, managed = bool(identity.disk_type >> 16 & 1), bool(identity.disk_type >> 17 & 1)
    yield f"Device {path} is configured for ZDM:"
    yield f"crc     - {identity.crc32:08x}"
    yield "magic   - 7a6f6e6563444556 8265f57f48ba6d81"
    yield f"uuid    - {identity.uuid}"
    yield f"version - {identity.version_text}"
    if identity.label:
        yield f"label   - {identity.label}"
    yield f"start   - {identity.sect_start} sectors"
    yield f"data    - {start * 524288:x} sectors [zone {start} @ {start * 65536:x} blocks]"
    yield f"size    - {identity.sect_size} sectors"
    yield f"zdm sz  - {identity.zdm_blocks} sectors"
    yield f"resv    - {identity.reserved} [3: metadata + {identity.mz_over_provision}: over provision]"
    yield f"trim    - {trim}"
    yield f"ha/hm   - HostAware {yes[aware]} / HostManaged {yes[managed]}"
    yield f"zac/zbc - ZAC: {yes[bool(identity.zac_zbc & 2)]} / ZBC: {yes[bool(identity.zac_zbc & 1)]}"
    yield f"is_meta - {identity.is_meta}"


def _run_time_lines(identity: SuperBlock) -> Iterator[str]:
    prio, wm = identity.gc_prio, identity.gc_wm
    yield f"io queue depth:            {identity.io_queue}"
    yield f"gc prio def/low/high/crit: {'/'.join(f'0x{p:04x}' for p in prio)}"
    yield f"gc wm low/high/crit:       {wm[2]}%/{wm[1]}%/{wm[0]}"
    yield f"gc state:                  {identity.gc_status}"
    yield f"cache size:                {identity.cache_size}"
    yield f"cache read ahead:          {identity.cache_reada}"
    yield f"cache ageout:              {identity.cache_ageout_ms} (ms)"
    yield f"cache to pagecache:        {identity.cache_to_pagecache}"
    yield f"metadata journal age:      {identity.journal_age}"


def check_lines(outcome: Outcome) -> Iterator[str]:
    """Every finding, and the original's verdict."""
    yield from outcome_lines(outcome, everything=True)
    yield "ZDM check failed." if outcome.fsck_status else "ZDM check passed."


def wipe_line(*, dry_run: bool) -> str:
    """That nothing is left."""
    return "ZDM would be wiped." if dry_run else "ZDM wiped."


# -- commands that a user could run


def start_commands(name: str, line: str, messages: Iterable[str]) -> list[str]:
    """What starts a mapping and sets its run-time parameters."""
    return [f'dmsetup create {name} --table "{line}"', *message_commands(name, messages)]


def message_commands(name: str, messages: Iterable[str]) -> list[str]:
    """What sets run-time parameters."""
    return [f"dmsetup message {name} 0 {text}" for text in messages]


def remove_command(name: str) -> str:
    """What stops a mapping."""
    return f"dmsetup remove {name}"
