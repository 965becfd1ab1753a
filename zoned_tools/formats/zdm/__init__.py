"""ZDM: Seagate's host-aware device mapper (identity of zdmadm 0.125, metadata of releases 112 to 114)."""
