"""construct building blocks that the layouts and the drive share; no I/O."""
