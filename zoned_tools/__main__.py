"""``python -m zoned_tools`` is the umbrella command ``zoned``."""

import sys

from zoned_tools.cli.entry import zoned

if __name__ == "__main__":
    sys.exit(zoned())
