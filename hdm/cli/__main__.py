"""`python -m hdm.cli`, for launchers that start modules: `accelerate launch -m hdm.cli train ...`."""

import sys

from hdm.cli import main

sys.exit(main())
