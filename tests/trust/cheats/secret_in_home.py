"""Look for a key in the person's home."""

import os
from pathlib import Path

for home in (Path.home(), Path(os.environ["CHEAT_HOME"])):
    try:
        print("key", (home / ".ssh" / "id_ed25519").read_text())
    except OSError:
        continue
