"""Hand over a graph that says another shape of a weight than it has."""

import json
import os
from pathlib import Path

from model import finish, honest

finish(honest())
path = Path(os.environ["NIGHTSHIFT_HAND_OVER"], "graph.json")
graph = json.loads(path.read_text())
for weight in graph["weights"]:
    if weight["name"] == "positions":
        weight["shape"] = [1, *weight["shape"]]
path.write_text(json.dumps(graph))
