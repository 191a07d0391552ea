"""`python -m outlast.cli` is the command `outlast`."""

from __future__ import annotations

import sys

from outlast.cli.main import main

sys.exit(main())
