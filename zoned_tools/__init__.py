"""Tools for zoned storage: zone reports, emulated drives and five on-disk layouts."""

__version__ = "0.1.0"
