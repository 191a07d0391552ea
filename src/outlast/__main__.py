"""`python -m outlast` is the command `outlast`."""

from __future__ import annotations

import sys

from outlast._cli.main import main

sys.exit(main())
