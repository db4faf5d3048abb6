"""Print 1 GB, of which much looks like metrics."""

import os

block = b"val_loss: 1.234567\n" * 100 + b"x" * 2**18 + b"\n"
written = 0
while written < 2**30:
    written += os.write(1, block[written % len(block) :])
