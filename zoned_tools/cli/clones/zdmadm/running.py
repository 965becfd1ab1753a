"""``zdmadm --set`` and ``--unload``: a mapping that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.cli.clones.zdmadm.arguments import has_run_time, merged
from zoned_tools.engine import device_mapper
from zoned_tools.formats.zdm.table import messages_of
from zoned_tools.report import zdmadm as text

if TYPE_CHECKING:
    from zoned_tools.cli.clones.zdmadm.session import Session


def change(session: Session) -> int:
    """Change run-time parameters, on the device and of the mapping."""
    identity = session.identity()
    if not has_run_time(session.arguments):
        session.note("no run-time parameter was given, nothing is changed")
        return 0
    identity = merged(identity, session.arguments, create=False)
    session.rewrite(identity)
    name, messages = session.name_of(identity), messages_of(identity)
    session.tell(messages=messages)
    session.say(*text.message_commands(name, messages))
    session.send(name, messages)
    return 0


def unload(session: Session) -> int:
    """Stop a running ZDM."""
    name = session.name_of(session.identity())
    command = text.remove_command(name)
    session.say(command)
    session.tell(commands=[command])
    if session.dry_run:
        return 0
    if not session.on_block_device:
        session.note("an image file is never loaded, nothing to do")
        return 0
    device_mapper.remove(name)
    session.tell(changed=True)
    return 0
