"""The offline model of the kernel's ``zoned`` target: open, read, write, allocate, commit, reclaim."""
