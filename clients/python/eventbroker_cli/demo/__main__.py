"""`python -m eventbroker_cli.demo`."""

import sys

from eventbroker_cli.demo import main

sys.exit(main())
