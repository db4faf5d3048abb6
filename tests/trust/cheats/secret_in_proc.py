"""Look for a key among the variables of all processes in sight."""

import os
from pathlib import Path

for folder in Path("/proc").glob("[0-9]*"):
    try:
        found = (folder / "environ").read_bytes()
    except OSError:
        continue
    if folder.name != str(os.getpid()) and b"NIGHTSHIFT_SELFTEST_VICTIM=" in found:
        print("key", folder.name)
