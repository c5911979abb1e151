"""``python -m posttrain.notebooks``: see :mod:`.notebooks.run`."""

import sys

from posttrain.notebooks.run import main

sys.exit(main())
