"""The files of a volume without the kernel: ``open`` has the tree, made of ``view``, ``read`` and ``write``."""
