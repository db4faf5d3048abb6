"""What experiments, guards and agents may see of this machine, from the settings.

Of the person's they see nothing: not the checkout, not the state of the workspace, not home. A work folder that lies in
the state is there all the same.
"""

from __future__ import annotations

import json
import os
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

from eventstore import settings as st
from eventstore.home import Home
from loop.effects.leftovers import COMPILED
from trainer.sandbox.find import graphics_devices, graphics_files
from trainer.sandbox.plan import Limits, View

CACHE_VARIABLE = "NIGHTSHIFT_CACHE"
HELD_OUT = ("*/train", "*/select", "*/report", "climbmix")
LIBRARIES = (Path("/usr/lib"), Path("/usr/local/lib"))
"""Where other interpreters keep their standard library, which is nearly the same text."""

NOTHING = Path("/dev/null")
"""Shown in the place of a file it is none: a device file, of which a sandbox opens only those that it was given."""


def cache_of(environ: Mapping[str, str]) -> Path:
    """Where the prepared corpus is kept, as prepare.py looks for it."""
    named = environ.get(CACHE_VARIABLE) or f"{environ.get('HOME', '~')}/.cache/nightshift"
    return Path(named).expanduser().absolute()


def of_experiment(settings: st.Settings, home: Home, folder: Path, environ: Mapping[str, str]) -> View:
    """
    What a training or a guard may see that runs in *folder*.

    Args:
        environ: The environment of the loop.
    """
    sandbox = settings.sandbox
    cache = cache_of(environ)
    hidden = [home.root, home.state, *held_out(settings, environ)]
    return View(
        mode=sandbox.mode,
        read=(cache, *_paths(sandbox.read, home)),
        hidden=tuple(hidden),
        veils=tuple((NOTHING, path) for path in held_out_texts(settings, environ)),
        scratch=folder.with_name(f"{folder.name}.scratch"),
        network=sandbox.network,
        limits=_limits(sandbox),
    )


def held_out(settings: st.Settings, environ: Mapping[str, str]) -> list[Path]:
    """
    What of the cache a training must not see, with a sealed score: the scored rows, the texts they come from, and what
    is trained on, which it is handed when its clock starts.
    """
    if settings.objective.score != "sealed":
        return []
    folders = [folder for folder, names in _texts(environ) if not names]
    return [path for pattern in HELD_OUT for path in cache_of(environ).glob(pattern)] + folders


def held_out_texts(settings: st.Settings, environ: Mapping[str, str]) -> list[Path]:
    """
    Single files that a training must not see, with a sealed score: texts that are scored of a corpus that it needs
    otherwise, which is the standard library. Also what they were compiled to, and those of other interpreters.
    """
    if settings.objective.score != "sealed":
        return []
    own = Path(sysconfig.get_paths()["stdlib"])
    others = [folder for libraries in LIBRARIES for folder in libraries.glob("python3*")]
    found: dict[Path, None] = {}
    for folder, names in _texts(environ):
        for library in dict.fromkeys((folder, *([own, *others] if folder == own else ()))):
            for path in (library / name for name in names):
                compiled = path.parent.glob(f"__pycache__/{path.stem}.*.pyc")
                found |= dict.fromkeys(each for each in (path, *compiled) if each.is_file())
    return list(found)


def _texts(environ: Mapping[str, str]) -> Iterator[tuple[Path, list[str]]]:
    """From which folder each prepared corpus was made, and which of its files are scored; none: no such files."""
    for manifest in cache_of(environ).glob("*/manifest.json"):
        try:
            texts = json.loads(manifest.read_bytes())["texts"]
            folder, names = Path(str(texts["folder"])), [str(name) for name in texts["hidden"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged: no run begins with it
        if folder.is_absolute():
            yield folder, names


def of_agent(settings: st.Settings, home: Home) -> View | None:
    """What the command of `[agent]` may see besides its folder; None: all that the loop can see."""
    if not settings.agent.sandbox:
        return None
    return View(
        mode=settings.sandbox.mode,
        read=_paths(settings.sandbox.read, home),
        write=_paths(settings.agent.files, home),
        hidden=(home.root, home.state),
        home=Path.home(),
        network=settings.agent.network,
        limits=_limits(settings.sandbox),
    )


def of_evaluator(settings: st.Settings, cache: Path, harness: Path, handed: Path) -> View:
    """What the evaluator may see: its harness, the scored rows of a corpus, and what was handed over."""
    rows = [cache / name for name in ("manifest.json", "tokenizer.json", "select", "report")]
    rows.append(harness / "prepare.py")
    devices = graphics_devices(None)
    files = graphics_files() if devices else ()
    limits = _limits(settings.sandbox)
    return View(mode=settings.sandbox.mode, read=(handed, *rows, *files), devices=devices, limits=limits)


def environment_of(environ: Mapping[str, str], folder: Path | None = None) -> dict[str, str]:
    """
    Variables that a confined child needs because its home is another one, and the cache read-only.

    What it compiles lies in its own *folder*: from a shared one it would run in the experiments after it.
    """
    found = {CACHE_VARIABLE: str(cache_of(environ))}
    if folder is not None:
        found |= dict.fromkeys(("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"), str(folder / COMPILED))
    return found


def _limits(sandbox: st.Sandbox) -> Limits:
    return Limits(
        memory_mb=sandbox.memory_mb, processes=sandbox.processes, disk_mb=sandbox.disk_mb, tmp_mb=sandbox.tmp_mb
    )


def _paths(named: tuple[str, ...], home: Home) -> tuple[Path, ...]:
    """Where the settings name something, and where links lead from there, unless that is around the workspace: what is
    hidden is hidden at its own path, and a link would show it at another one."""
    found: list[Path] = []
    for text in named:
        path = Path(os.path.normpath(home.root / Path(text).expanduser()))
        real = path.resolve()
        found += [real] if home.root.resolve().is_relative_to(real) else [path, real]
    return tuple(dict.fromkeys(found))
