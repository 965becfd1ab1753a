"""What kernels find on the devices of a btrfs, without a kernel."""
