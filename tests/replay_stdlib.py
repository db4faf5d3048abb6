"""Compute results.tsv from a log with nothing but the standard library, to check Nightshift against.

python tests/replay_stdlib.py .nightshift/events.db nov21
python tests/replay_stdlib.py export.jsonl nov21
"""

import json
import re
import sqlite3
import sys
from pathlib import Path


def read(path):
    """Rows (type, data) of every run in log order, as (run, type, data)."""
    if Path(path).suffix == ".jsonl":
        for line in Path(path).read_text(encoding="utf-8").split("\n"):
            if line:
                row = json.loads(line)
                yield row["run"], row["type"], row["data"]
        return
    connection = sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True)
    for run, kind, data in connection.execute("SELECT run, type, data FROM events ORDER BY position"):
        yield run, kind, json.loads(data)
    connection.close()


def one_line(text):
    line = re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).lstrip(" \"'")
    return line[:200].rstrip(" ")


def results(events, tag):
    metric, commits, peaks, descriptions = None, {}, {}, {}
    rows, branch, moved = {}, [], {0}
    for run, kind, data in events:
        if run != tag:
            continue
        number, attempt = data.get("experiment"), data.get("attempt", 0)
        if kind == "run.started":
            metric = data["settings"]["objective"]["name"]
        elif kind == "proposal.received" and not attempt:  # a repair keeps the name of what it repairs
            descriptions[number] = data["description"]
        elif kind == "experiment.committed":
            commits[number, attempt] = data["commit"]
        elif kind == "training.finished" and data["outcome"] not in ("stopped", "lost"):
            peak = data.get("peak_memory_mb", 0.0)
            peaks[number, attempt] = max(peak, peaks.get((number, attempt), 0.0))
        elif kind == "experiment.decided":
            crashed = data["verdict"] == "crash"
            rows[number] = [
                commits[number, attempt][:7],
                f"{0.0 if crashed else data.get('score') or 0.0:.6f}",
                f"{0.0 if crashed else peaks.get((number, attempt), 0.0) / 1024:.1f}",
                data["verdict"],
                one_line(descriptions[number]) if number else "baseline",
            ]
            if data["verdict"] == "keep":
                branch.append(number)
        elif kind == "branch.moved" and data["why"] == "keep":
            moved.add(number)
        elif kind == "run.finished" and branch and branch[-1] not in moved:  # someone else held the branch
            rows[branch.pop()][3] = "discard"
        elif kind == "branch.moved" and number in branch[1:]:
            while number in branch:
                rows[branch.pop()][3] = "discard"
    if metric is None:
        sys.exit(f"no run {tag} in this log")
    header = ["commit", metric, "memory_gb", "status", "description"]
    return "".join("\t".join(row) + "\n" for row in [header, *rows.values()])


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    sys.stdout.write(results(read(sys.argv[1]), sys.argv[2]))
