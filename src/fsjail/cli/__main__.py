"""``python -m fsjail.cli`` is the ``fsjail`` command."""

from __future__ import annotations

import sys

from fsjail.cli import main

sys.exit(main())
