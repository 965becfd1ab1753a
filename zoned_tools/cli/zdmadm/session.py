"""What the verbs of ``zdmadm`` do with an open device."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zoned_tools.cli.zdmadm.arguments import Arguments, has_run_time, merged, strtol, uuid_of
from zoned_tools.errors import ContentError, DeviceError, MetadataError

if TYPE_CHECKING:
    from zoned_tools.device.base import Device
    from zoned_tools.formats.contract import Target
    from zoned_tools.formats.zdm.format import Place
    from zoned_tools.formats.zdm.superblock import SuperBlock

NO_IDENTITY = 255
"""Exit status of probe, restore, set and unload without a valid identity."""


def probe_lines(identity: SuperBlock, path: str) -> list[str]:
    """What probe prints, line by line."""
    start, prio, wm = identity.data_start, identity.gc_prio, identity.gc_wm
    trim = ("ON+raid5" if identity.discard >> 16 else "ON") if identity.discard & 1 else "OFF"
    yes = {False: "No", True: "Yes"}
    aware, managed = bool(identity.disk_type >> 16 & 1), bool(identity.disk_type >> 17 & 1)
    lines = [
        f"Device {path} is configured for ZDM:",
        f"crc     - {identity.crc32:08x}",
        "magic   - 7a6f6e6563444556 8265f57f48ba6d81",
        f"uuid    - {identity.uuid}",
        f"version - {identity.version_text}",
    ]
    if identity.label:
        lines.append(f"label   - {identity.label}")
    lines += [
        f"start   - {identity.sect_start} sectors",
        f"data    - {start * 524288:x} sectors [zone {start} @ {start * 65536:x} blocks]",
        f"size    - {identity.sect_size} sectors",
        f"zdm sz  - {identity.zdm_blocks} sectors",
        f"resv    - {identity.reserved} [3: metadata + {identity.mz_over_provision}: over provision]",
        f"trim    - {trim}",
        f"ha/hm   - HostAware {yes[aware]} / HostManaged {yes[managed]}",
        f"zac/zbc - ZAC: {yes[bool(identity.zac_zbc & 2)]} / ZBC: {yes[bool(identity.zac_zbc & 1)]}",
        f"is_meta - {identity.is_meta}",
        "---",
        f"io queue depth:            {identity.io_queue}",
        f"gc prio def/low/high/crit: {'/'.join(f'0x{p:04x}' for p in prio)}",
        f"gc wm low/high/crit:       {wm[2]}%/{wm[1]}%/{wm[0]}",
        f"gc state:                  {identity.gc_status}",
        f"cache size:                {identity.cache_size}",
        f"cache read ahead:          {identity.cache_reada}",
        f"cache ageout:              {identity.cache_ageout_ms} (ms)",
        f"cache to pagecache:        {identity.cache_to_pagecache}",
        f"metadata journal age:      {identity.journal_age}",
    ]
    return lines


def _own_start(path: str) -> int | None:
    """First sector of a partition's node on its drive; None for everything else."""
    from pathlib import Path

    try:
        status = os.stat(path)
        if not stat.S_ISBLK(status.st_mode):
            return None
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        return int(Path("/sys/dev/block", number, "start").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _is_block_device(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


class Session:
    """One verb on one open device."""

    def __init__(self, arguments: Arguments, device: Device) -> None:
        from zoned_tools.formats.zdm.format import place_of

        self.arguments = arguments
        self.device = device
        self.quiet = arguments.has("json")
        self.dry_run = arguments.has("dry-run")
        self.document: dict[str, object] = {
            "schema": "zoned.zdmadm/1",
            "operation": arguments.verb,
            "device": device.path,
            "changed": False,
        }
        own = None if arguments.has("start") else _own_start(arguments.path)
        start = self._start_sector() if own is None else own
        self.place: Place = place_of(device, start, own_node=own is not None)

    def _start_sector(self) -> int:
        """``--start``, or the one partition with a ZDM (for create: the only partition), or 0."""
        from zoned_tools.device.partition import partition_starts
        from zoned_tools.formats.zdm.probe import probe

        given = self.arguments.values.get("start")
        if given is not None:
            return int(given)
        starts = partition_starts(self.device)
        if self.arguments.verb == "create":
            return starts[0] // 512 if len(starts) == 1 else 0
        return next((s // 512 for s in (0, *starts) if probe(self.device, s) is not None), 0)

    def say(self, *lines: str) -> None:
        if not self.quiet:
            print("\n".join(lines), flush=True)

    def note(self, text: str) -> None:
        print(f"zdmadm: {self.device.path}: {text}", file=sys.stderr)

    @property
    def target(self) -> Target:
        from zoned_tools.formats.contract import Target

        return Target("zdm", (self.device,), self.place.offset_bytes)

    def identity(self) -> SuperBlock:
        """The identity on the device.

        Raises:
            MetadataError: there is none (exit status 255).
        """
        from zoned_tools.formats.zdm import layout
        from zoned_tools.formats.zdm.superblock import SuperBlock

        volume = self.place.volume
        if not volume.has(0, layout.ZEROED_BLOCKS):
            raise MetadataError("too small for a ZDM", device=self.device.path, clone_status=NO_IDENTITY)
        identity = SuperBlock.parse(volume.read(0))
        if not identity.usable:
            what = "the identity is damaged" if identity.magic_ok else "no ZDM found"
            hint = "zdmadm --check tells more" if identity.magic_ok else "name its first sector with --start"
            raise MetadataError(what, device=self.device.path, hint=hint, clone_status=NO_IDENTITY)
        return identity

    def run(self) -> int:
        """Run the verb; the exit status."""
        for note in self.arguments.notes:
            self.note(note)
        status: int = getattr(self, f"do_{self.arguments.verb}")()
        if self.quiet and self.document:
            from zoned_tools.cli.output import print_json

            print_json(self.document)
        return status

    # -- verbs

    def do_probe(self) -> int:
        self._show(self.identity())
        return 0

    def do_check(self) -> int:
        from zoned_tools.engine.checking import CheckRequest, check_target
        from zoned_tools.report.check import check_document, outcome_lines
        from zoned_tools.report.stream import write_text

        outcome = check_target(self.target, CheckRequest())
        failed = outcome.fsck_status != 0
        self.say(*outcome_lines(outcome, everything=True), "ZDM check failed." if failed else "ZDM check passed.")
        self.document = {}
        if self.quiet:
            write_text(check_document([outcome], changed=False))
        return 1 if failed else 0

    def do_create(self) -> int:
        from zoned_tools.formats.zdm import format as room
        from zoned_tools.formats.zdm.constants import DEFAULT_RESERVED
        from zoned_tools.formats.zdm.probe import probe
        from zoned_tools.formats.zdm.superblock import SuperBlock
        from zoned_tools.formats.zdm.table import line_of

        arguments, place = self.arguments, self.place
        force = arguments.has("force")
        if probe(self.device, place.offset_bytes) is not None and not force:
            raise ContentError("there is a ZDM already", device=self.device.path, hint="use -F to overwrite it")
        if not self.device.geometry.is_zoned and not force:
            raise ContentError("Not zoned", device=self.device.path, hint="use -F to force")
        over = strtol(arguments.values.get("over", "0"))
        reserved = over if 8 < over < 1024 else DEFAULT_RESERVED
        blank = SuperBlock(uuid_of(arguments), 0, 0, 0, 0)
        template = merged(blank, arguments, create=True)
        identity = room.identity_for(place, reserved, template, template.uuid)
        geometry, _ = room.check_place(place, reserved)
        plan = room.plan_create(place, identity)
        if arguments.has("reset-zones"):
            wipe = room.plan_wipe(place, geometry, reset_zones=True)
            plan.steps[:0] = wipe.steps
        self._execute(plan, str(identity.uuid))
        line = line_of(
            identity,
            self.device.path,
            create=True,
            force=force,
            meta=arguments.values.get("meta", ""),
            mirror=arguments.has("mirror"),
        )
        self._show(SuperBlock.parse(identity.pack()))
        self._start(identity, line, with_messages=has_run_time(arguments), needed=False)
        return 0

    def do_restore(self) -> int:
        from zoned_tools.formats.zdm.open import load, require_usable
        from zoned_tools.formats.zdm.table import line_of

        identity = merged(self.identity(), self.arguments, create=False)
        require_usable(load(self.target))
        self._rewrite(identity)
        line = line_of(
            identity,
            self.device.path,
            meta=self.arguments.values.get("meta", ""),
            mirror=self.arguments.has("mirror"),
        )
        self._show(self.identity() if not self.dry_run else identity)
        self._start(identity, line, with_messages=True, needed=True)
        return 0

    def do_set(self) -> int:
        from zoned_tools.formats.zdm.table import messages_of

        identity = self.identity()
        if not has_run_time(self.arguments):
            self.note("no run-time parameter was given, nothing is changed")
            return 0
        identity = merged(identity, self.arguments, create=False)
        self._rewrite(identity)
        self._send(self._name(identity), messages_of(identity))
        return 0

    def do_unload(self) -> int:
        from zoned_tools.engine import device_mapper

        name = self._name(self.identity())
        self.say(f"dmsetup remove {name}")
        self.document["commands"] = [f"dmsetup remove {name}"]
        if self.dry_run:
            return 0
        if not _is_block_device(self.arguments.path):
            self.note("an image file is never loaded, nothing to do")
            return 0
        device_mapper.remove(name)
        self.document["changed"] = True
        return 0

    def do_wipe(self) -> int:
        from zoned_tools.formats.zdm import format as room
        from zoned_tools.formats.zdm.open import load
        from zoned_tools.formats.zdm.probe import probe

        if probe(self.device, self.place.offset_bytes) is None:
            raise MetadataError("no ZDM found", device=self.device.path, hint="name its first sector with --start")
        if not self.arguments.has("force"):
            raise ContentError("wiping destroys the ZDM", device=self.device.path, hint="use -F to wipe it")
        geometry = None
        if self.arguments.has("reset-zones"):
            geometry = load(self.target).geometry
        plan = room.plan_wipe(self.place, geometry, reset_zones=geometry is not None)
        self._execute(plan, "zdm")
        self.say("ZDM wiped." if not self.dry_run else "ZDM would be wiped.")
        return 0

    # -- pieces

    def _name(self, identity: SuperBlock) -> str:
        from zoned_tools.formats.zdm.table import mapping_name

        label = self.arguments.values.get("label", "")
        return mapping_name(replace(identity, label=label) if label else identity, self.arguments.path)

    def _show(self, identity: SuperBlock) -> None:
        from zoned_tools.formats.zdm.superblock import as_json

        self.say(*probe_lines(identity, self.arguments.path))
        self.document["identity"] = as_json(identity)

    def _execute(self, plan: Any, identity: str) -> None:
        from zoned_tools.cli.changes import execute

        self.document["plan"] = list(plan.describe([self.device.path]))
        if self.dry_run and self.quiet:
            return
        undo = self.arguments.values.get("undo")
        changed = execute(plan, [self.device], dry_run=self.dry_run, undo=undo, identity_after=identity)
        self.document["changed"] = bool(changed)

    def _rewrite(self, identity: SuperBlock) -> None:
        """Write the identity with its new values; those of older tools are left as they are."""
        from zoned_tools.device.plan import Plan
        from zoned_tools.formats.zdm.superblock import Form

        if identity.form is not Form.CRC32_512:
            self.note("the identity is of an older tool and is not rewritten")
            return
        new = identity.pack()
        if new == self.place.volume.read(0):
            return
        plan = Plan(f"rewrite the identity of ZDM {identity.uuid}")
        plan.write(0, self.place.offset_bytes, new, "identity super block")
        plan.flush(0)
        self._execute(plan, str(identity.uuid))

    def _start(self, identity: SuperBlock, line: str, *, with_messages: bool, needed: bool) -> None:
        """Build the dmsetup command and run it where that can work."""
        from zoned_tools.engine import device_mapper
        from zoned_tools.formats.zdm.table import TARGET_NAME, messages_of

        name = self._name(identity)
        messages = messages_of(identity) if with_messages else []
        commands = [f'dmsetup create {name} --table "{line}"']
        commands += [f"dmsetup message {name} 0 {text}" for text in messages]
        self.document |= {"name": name, "table": line, "messages": messages, "commands": commands}
        self.say(*commands)
        if self.dry_run:
            return
        if not _is_block_device(self.arguments.path):
            self.note("an image file is not started; zoned serve offers its content")
            return
        if device_mapper.target_version(TARGET_NAME) is None:
            text = "not started: the running kernel has no target 'zdm'"
            hint = "zoned serve and zoned export read it without a kernel"
            if needed:
                raise DeviceError(text, device=self.device.path, hint=hint)
            self.note(f"{text} ({hint})")
            return
        device_mapper.create(name, line)
        self.document["started"] = True
        self._send(name, messages)

    def _send(self, name: str, messages: list[str]) -> None:
        """Send messages; the first failure ends it."""
        from zoned_tools.engine import device_mapper

        self.document["messages"] = messages
        if self.arguments.verb == "set":
            self.say(*(f"dmsetup message {name} 0 {text}" for text in messages))
        if self.dry_run or not _is_block_device(self.arguments.path):
            return
        for text in messages:
            device_mapper.message(name, text)
