"""Hand over a graph that is nested deeper than a reader can follow."""

import os
from pathlib import Path

from model import finish, honest

finish(honest())
path = Path(os.environ["NIGHTSHIFT_HAND_OVER"], "graph.json")
text = path.read_text()
path.write_text(text.replace('"args":[', '"args":[' + "[" * 100_000 + "]" * 100_000 + ",", 1))
