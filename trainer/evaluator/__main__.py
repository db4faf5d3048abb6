"""`python -m trainer.evaluator`: see `trainer.evaluator.serve`."""

from __future__ import annotations

import sys

from trainer.evaluator.serve import main

if __name__ == "__main__":
    sys.exit(main())
