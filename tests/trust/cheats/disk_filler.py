"""Fill the disk (here: 160 MiB in many files)."""

import time
from pathlib import Path

for number in range(40):
    Path(f"part{number}").write_bytes(b"x" * 2**22)
time.sleep(0.5)
print("wrote", 160)
