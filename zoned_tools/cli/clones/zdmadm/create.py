"""``zdmadm --create`` and ``--restore``: an identity on the device, and the mapping started over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.cli.clones.zdmadm.arguments import has_run_time, merged, strtol, uuid_of
from zoned_tools.engine import device_mapper
from zoned_tools.errors import ContentError, DeviceError
from zoned_tools.formats.zdm import format as room
from zoned_tools.formats.zdm.constants import DEFAULT_RESERVED
from zoned_tools.formats.zdm.open import load, require_usable
from zoned_tools.formats.zdm.probe import probe
from zoned_tools.formats.zdm.superblock import SuperBlock
from zoned_tools.formats.zdm.table import TARGET_NAME, line_of, messages_of
from zoned_tools.report import zdmadm as text

if TYPE_CHECKING:
    from zoned_tools.cli.clones.zdmadm.session import Session


def create(session: Session) -> int:
    """Write identity and empty tables, and start the mapping."""
    arguments, place = session.arguments, session.place
    force = arguments.has("force")
    _refuse_unfit(session, force=force)
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
    session.execute(plan, str(identity.uuid))
    line = line_of(
        identity,
        session.device.path,
        create=True,
        force=force,
        meta=arguments.values.get("meta", ""),
        mirror=arguments.has("mirror"),
    )
    session.show(SuperBlock.parse(identity.pack()))
    _start(session, identity, line, with_messages=has_run_time(arguments), needed=False)
    return 0


def _refuse_unfit(session: Session, *, force: bool) -> None:
    path = session.device.path
    if probe(session.device, session.place.offset_bytes) is not None and not force:
        raise ContentError("there is a ZDM already", device=path, hint="use -F to overwrite it")
    if not session.device.geometry.is_zoned and not force:
        raise ContentError("Not zoned", device=path, hint="use -F to force")


def restore(session: Session) -> int:
    """Start an existing ZDM."""
    arguments = session.arguments
    identity = merged(session.identity(), arguments, create=False)
    require_usable(load(session.target))
    session.rewrite(identity)
    meta, mirror = arguments.values.get("meta", ""), arguments.has("mirror")
    line = line_of(identity, session.device.path, meta=meta, mirror=mirror)
    session.show(session.identity() if not session.dry_run else identity)
    _start(session, identity, line, with_messages=True, needed=True)
    return 0


def _start(session: Session, identity: SuperBlock, line: str, *, with_messages: bool, needed: bool) -> None:
    """Build the dmsetup command and run it where that can work."""
    name = session.name_of(identity)
    messages = messages_of(identity) if with_messages else []
    commands = text.start_commands(name, line, messages)
    session.tell(name=name, table=line, messages=messages, commands=commands)
    session.say(*commands)
    if session.dry_run:
        return
    if not session.on_block_device:
        session.note("an image file is not started; zoned serve offers its content")
        return
    if device_mapper.target_version(TARGET_NAME) is None:
        reason = "not started: the running kernel has no target 'zdm'"
        hint = "zoned serve and zoned export read it without a kernel"
        if needed:
            raise DeviceError(reason, device=session.device.path, hint=hint)
        session.note(f"{reason} ({hint})")
        return
    device_mapper.create(name, line)
    session.tell(started=True)
    session.send(name, messages)
