"""Offline model of the mapper: reads every dialect that can be read, writes the current one."""
