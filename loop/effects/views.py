"""What experiments, guards and agents may see of this machine, from the settings.

Of the person's they see nothing: not the checkout, not the state of the workspace, not home. A work folder that lies in
the state is there all the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from eventstore import settings as st
from eventstore.home import Home
from trainer.sandbox.plan import Limits, View

CACHE_VARIABLE = "NIGHTSHIFT_CACHE"
HELD_OUT = ("*/select", "*/report", "climbmix")
"""What of the cache a training must not see whose score is sealed: the scored rows, and the texts they come from."""


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
    hidden = [home.root, home.state]
    if settings.objective.score == "sealed":
        hidden += [path for pattern in HELD_OUT for path in cache.glob(pattern)]
    return View(
        mode=sandbox.mode,
        read=(cache, *_paths(sandbox.read, home)),
        hidden=tuple(hidden),
        scratch=folder.with_name(f"{folder.name}.scratch"),
        network=sandbox.network,
        limits=_limits(sandbox),
    )


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


def environment_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that a confined child needs because its home is another one."""
    return {CACHE_VARIABLE: str(cache_of(environ))}


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
