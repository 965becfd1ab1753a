"""dm-inplace-compress: every block compressed at its own place, offline."""
