"""``python -m kodmobi_async``: the command line."""

from __future__ import annotations

import sys

from kodmobi_async.cli import main

sys.exit(main())
