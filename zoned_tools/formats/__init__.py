"""The on-disk layouts, one package each with the same rooms (see :mod:`zoned_tools.formats.registry`)."""
