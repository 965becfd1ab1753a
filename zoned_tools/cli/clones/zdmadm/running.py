"""``zdmadm --set`` and ``--unload``: a mapping that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.cli.clones.zdmadm.arguments import has_run_time, merged
from zoned_tools.device import device_mapper
from zoned_tools.errors import DeviceError
from zoned_tools.formats.zdm.table import messages_of
from zoned_tools.report import zdmadm as text

if TYPE_CHECKING:
    from zoned_tools.cli.clones.zdmadm.session import Session


def change(session: Session) -> int:
    """Change run-time parameters, on the device and of the mapping."""
    session.scan()
    identity = session.identity("ZDM Not found. Nothing to restore.")
    if not has_run_time(session.arguments):
        return 0
    identity = merged(identity, session.arguments, create=False)
    session.rewrite(identity)
    messages = messages_of(identity)
    session.tell(messages=messages)
    return session.send(session.name_of(identity), messages)


def unload(session: Session) -> int:
    """Stop a running ZDM."""
    session.scan()
    name = session.name_of(session.identity("ZDM Not found. Nothing to unload."))
    command = text.remove_command(name)
    session.say(command)
    session.tell(commands=[command])
    if not session.runs_commands:
        return 0
    try:
        device_mapper.remove(name)
    except DeviceError as error:
        return session.command_failed("ZDM Unload failed", error)
    session.tell(changed=True)
    return 0
