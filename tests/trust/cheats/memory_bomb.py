"""Take memory without end (here: 512 MiB)."""

import time

taken = [bytes([n + 1]) * 2**24 for n in range(32)]
time.sleep(0.5)
print("took", 16 * len(taken))
