"""The drive: one :class:`~zoned_tools.device.base.Device` protocol over block devices and images."""
