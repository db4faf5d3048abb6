"""What people ask to see: read from the log and the workspace, shown by `views.answers`. Changes nothing."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from bot import intents as i
from bot.ledger import PAGE, Ledger
from bot.message import Message
from bot.views import answers
from bot.views import story as story_view
from bot.views.answers import File
from eventstore import events as e
from eventstore import views
from eventstore.home import Home
from eventstore.projections.results import Row
from eventstore.projections.run_state import Run
from eventstore.projections.story import Story
from eventstore.requests import Refused

LOG_END_BYTES = 64_000
_TRAINING = re.compile(r"(\d+)\.(\d+)", re.ASCII)

Look = i.Status | i.Results | i.Experiment | i.Diff | i.Log | i.Ideas


class Looks:
    """Answers to intents that only look. Bring the ledger up to date first."""

    def __init__(self, ledger: Ledger, home: Home) -> None:
        self._ledger = ledger
        self._home = home

    async def answer(self, asked: Look, now: datetime, *, may: bool) -> tuple[Message, File | None]:
        """What is to be shown, with buttons if the asker *may* use them, and a file that goes with it."""
        match asked:
            case i.Status(tag=tag):
                return self._status(tag, now, may=may), None
            case i.Results(tag=tag):
                return self._results(tag)
            case i.Ideas():
                found = views.ideas(self._ledger.board.ideas.all(), self._ledger.state)
                return answers.ideas(found), None
            case _:
                return await self._of_experiment(asked, may=may), None

    def status_view(self, run: Run | None, now: datetime) -> views.Status:
        """How *run* stands; None for a workspace without one."""
        beside = self._ledger.board.besides.of(run.tag) if run is not None else None
        return views.status(self._ledger.state, run, self._home.holder(), now, beside)

    def _status(self, tag: str | None, now: datetime, *, may: bool) -> Message:
        run = views.pick(self._ledger.state, tag)
        if isinstance(run, Refused):
            if tag is not None:
                return answers.refused(run.why)
            return answers.status(self.status_view(None, now), self._ledger.state, now)
        return answers.status(self.status_view(run, now), self._ledger.state, now, may=may)

    def _results(self, tag: str | None) -> tuple[Message, File | None]:
        results = self._ledger.results
        run = views.pick_started(self._ledger.state, tag)
        if isinstance(run, Refused):
            return answers.refused(run.why), None
        return answers.results(run.tag, results.metric(run.tag), results.rows(run.tag), results.tsv(run.tag))

    async def _of_experiment(self, asked: i.Experiment | i.Diff | i.Log, *, may: bool) -> Message:
        run = views.pick_started(self._ledger.state, asked.tag)
        if isinstance(run, Refused):
            return answers.refused(run.why)
        if asked.experiment >= run.next_number:
            return answers.refused(views.no_such_experiment(run, asked.experiment))
        story = await self._story(run, asked.experiment)
        if isinstance(asked, i.Diff):
            return story_view.diff(story)
        if isinstance(asked, i.Log):
            folder = self._home.run_dir(run.tag, asked.experiment, 0, 0).parent
            return story_view.log_tail(story, await asyncio.to_thread(_end_of_newest_log, folder))
        ideas = await self._ideas(story)
        row = self._row(run, asked.experiment)
        return story_view.experiment(self._ledger.state, run, story, row, self._home.holder(), ideas, may=may)

    def _row(self, run: Run, number: int) -> Row | None:
        return next((row for row in self._ledger.results.rows(run.tag) if row.experiment == number), None)

    async def _story(self, run: Run, number: int) -> Story:
        """Read the run's part of the log again: what an experiment said and did is not kept in memory."""
        story, after = Story(run.tag, number), run.requested_at - 1
        while page := await self._ledger.log.read(after, limit=PAGE):
            for event in page:
                story.apply(event)
            after = page[-1].position
        return story

    async def _ideas(self, story: Story) -> Mapping[int, e.IdeaSuggested]:
        found: dict[int, e.IdeaSuggested] = {}
        for position in {asked.idea for asked in story.asks if asked.idea is not None}:
            for event in await self._ledger.log.read(position - 1, limit=1):
                if isinstance(event.data, e.IdeaSuggested):
                    found[position] = msgspec.structs.replace(event.data, by=event.data.by or event.actor)
        return found


def _end_of_newest_log(folder: Path) -> str | None:
    """The end of the log of the newest training that is kept in *folder*; None if there is none."""
    found = []
    for path in folder.glob("*/run.log"):
        named = _TRAINING.fullmatch(path.parent.name)
        if named is not None:
            found.append(((int(named[1]), int(named[2])), path))
    if not found:
        return None
    try:
        with max(found)[1].open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_END_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:  # it was cleared away meanwhile; the event log keeps its end
        return None
