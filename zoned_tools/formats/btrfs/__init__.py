"""btrfs on zoned devices: the super block log rings, how to see, verify and rescue them."""
