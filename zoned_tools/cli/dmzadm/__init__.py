"""``dmzadm``: options, and one module for each group of operations."""
