"""The sub-commands of ``zoned``, one module each, loaded when they are called."""
