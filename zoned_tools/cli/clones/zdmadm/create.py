"""``zdmadm --create`` and ``--restore``: an identity on the device, and the mapping started over it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoned_tools.cli.clones.zdmadm.arguments import has_run_time, merged, uuid_of
from zoned_tools.device import device_mapper
from zoned_tools.device.plan import Plan
from zoned_tools.errors import ContentError, DeviceError, UsageError
from zoned_tools.formats.zdm import format as room
from zoned_tools.formats.zdm.layout import BLOCK_BYTES, ZONE_BLOCKS, ZONE_BYTES, CreateLayout
from zoned_tools.formats.zdm.open import load, require_usable
from zoned_tools.formats.zdm.superblock import SuperBlock
from zoned_tools.formats.zdm.table import line_of, messages_of
from zoned_tools.report import zdmadm as text

if TYPE_CHECKING:
    from zoned_tools.cli.clones.zdmadm.session import Session

_TOO_SMALL = 2
"""Exit status when the metadata device is too small."""


def create(session: Session) -> int:
    """Write identity and empty tables, and start the mapping."""
    arguments, place = session.arguments, session.place
    created = session.created
    geometry, _ = room.check_place(place, created.reserved)
    template = merged(SuperBlock(uuid_of(arguments), 0, 0, 0, 0), arguments, create=True)
    identity = room.identity_for(place, created.reserved, template, template.uuid)
    pool = _pool_of(session, created)
    session.scan()
    _require_space(session, created, pool)
    if session.probe() is not None and not arguments.has("force"):
        session.say("ZDM Already on disk. Use -F to force")
        raise ContentError("there is a ZDM already", device=session.device.path, hint="use -F to overwrite it")
    if arguments.has("mirror") and not arguments.has("meta"):
        session.say("No metadata device provided")
        raise UsageError("--mirror needs --meta", device=session.device.path)
    plan = Plan(f"create ZDM {identity.uuid}")
    if arguments.has("reset-zones"):
        plan.steps += room.plan_wipe(place, geometry, reset_zones=True).steps
    line = _line(session, identity, create=True)  # what no line can carry is refused before the first write
    for number, written in session.written:
        room.write_pool(plan, number, written.offset_bytes, pool, identity)
        session.say(*text.pool_lines(written.device.path, pool, verbose=session.verbose))
    try:
        session.execute(plan, str(identity.uuid))
    except DeviceError:
        session.say("** ERROR: ZDM metadata init failed: -28", "ZDM Create failed.")
        raise
    status = _start(session, identity, line, create=True)
    session.show(SuperBlock.parse(identity.pack()))
    if has_run_time(arguments):
        status = session.send(session.name_of(identity), messages_of(identity)) or status
    return status


def _pool_of(session: Session, created: CreateLayout) -> CreateLayout:
    """Where the metadata lie: as on the device itself, unless the metadata device has them alone."""
    if session.meta is None or session.arguments.has("mirror"):
        return created
    own = CreateLayout.compute(session.meta.start_sector, session.meta.size_sectors, created.reserved)
    return replace(created, start_sector=own.start_sector, pool_start=own.pool_start)


def _require_space(session: Session, created: CreateLayout, pool: CreateLayout) -> None:
    """Tell the size of the metadata device, and refuse one that is too small."""
    if session.meta is None:
        return
    size, needed = session.meta.size_sectors * 512, created.metadata_zones * ZONE_BYTES
    session.say(*text.size_lines(size, needed))
    end = pool.pool_start + 2 * pool.table_zones * ZONE_BLOCKS + pool.crc_pages
    if size < max(needed, end * BLOCK_BYTES):
        raise DeviceError(
            f"the metadata device has {size} bytes, {max(needed, end * BLOCK_BYTES)} are needed",
            device=session.meta.device.path,
            clone_status=_TOO_SMALL,
        )


def restore(session: Session) -> int:
    """Start an existing ZDM."""
    session.scan()
    identity = merged(session.identity("ZDM Not found. Nothing to restore."), session.arguments, create=False)
    if session.meta is None or session.arguments.has("mirror"):
        require_usable(load(session.target))
    line = _line(session, identity, create=False)
    session.rewrite(identity)
    status = _start(session, identity, line, create=False)
    session.tell(identity=session.identity_document(identity))
    return session.send(session.name_of(identity), messages_of(identity)) or status


def _line(session: Session, identity: SuperBlock, *, create: bool) -> str:
    """The table line.

    Raises:
        UsageError: it cannot carry a name.
    """
    arguments = session.arguments
    return line_of(
        identity,
        session.device.path,
        create=create,
        force=arguments.has("force"),
        meta=arguments.values.get("meta", ""),
        mirror=arguments.has("mirror"),
    )


def _start(session: Session, identity: SuperBlock, line: str, *, create: bool) -> int:
    """The dmsetup command: shown, and run where that can work; the exit status."""
    arguments = session.arguments
    name = session.name_of(identity)
    messages = messages_of(identity) if has_run_time(arguments) or not create else []
    command = text.start_command(name, line)
    session.tell(name=name, table=line, messages=messages, commands=[command, *text.message_commands(name, messages)])
    if session.verbose or not create or not session.runs_commands:
        session.say(command)
    if not session.runs_commands:
        return 0
    try:
        device_mapper.create(name, line)
    except DeviceError as error:
        failed = "** ERROR: Create ZDM instance failed" if create else "Restore ZDM instance failed"
        return session.command_failed(failed, error)
    session.tell(started=True)
    return 0
