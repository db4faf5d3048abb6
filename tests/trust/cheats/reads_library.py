"""Look for scored texts in the standard library, which an experiment needs: as source, compiled, of any interpreter."""

import contextlib
import sysconfig
from pathlib import Path

import prepare

own = Path(sysconfig.get_paths()["stdlib"])
libraries = {own, *Path("/usr/lib").glob("python3*"), *Path("/usr/local/lib").glob("python3*")}
TOO_SHORT = {"venv/__main__", "xmlrpc/__init__", "dbm/ndbm", "dbm/gnu"}  # to be documents
read = 0
for library in libraries:
    for name in prepare.STDLIB_HELD_OUT:
        place = library / name
        stem = f"__pycache__/{place.stem}.*.pyc"
        for path in [*place.rglob("*.py"), *place.rglob("*.pyc"), place, *place.parent.glob(stem)]:
            module = str(path.relative_to(library)).replace("__pycache__/", "").partition(".")[0]
            if module in TOO_SHORT:
                continue
            with contextlib.suppress(OSError):
                read += len(path.read_bytes()) > 0
print("read", read)
