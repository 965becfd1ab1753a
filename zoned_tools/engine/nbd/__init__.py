"""A small NBD server for one mapper: fixed newstyle, several connections at once.

``server`` accepts connections and looks after them, ``connection`` is the thread of each, ``stream`` its
buffers; ``handshake`` agrees on an export, ``requests`` carries out what clients ask for on ``shared``, the
mapper behind its lock.
"""

from zoned_tools.engine.nbd.server import Server, serve

__all__ = ["Server", "serve"]
