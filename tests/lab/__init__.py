"""The kernel lab: tests that a real Linux kernel with every zoned feature runs and judges."""
