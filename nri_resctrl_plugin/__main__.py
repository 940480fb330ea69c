"""`python -m nri_resctrl_plugin` is the program `nri-resctrl-plugin`."""

from __future__ import annotations

import sys

from nri_resctrl_plugin.cli import main

if __name__ == "__main__":
    sys.exit(main())
