"""Hand over a graph whose first node waits for its last."""

import json
import os
from pathlib import Path

from model import finish, honest

finish(honest())
path = Path(os.environ["NIGHTSHIFT_HAND_OVER"], "graph.json")
graph = json.loads(path.read_text())
graph["nodes"][0]["args"][0] = {"ref": graph["output"]}
path.write_text(json.dumps(graph))
