"""zonefs: every zone of a drive is a file; a 4096-byte super block is all the metadata there is."""
