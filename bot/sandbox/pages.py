"""What one person has before them in the sandbox, as cards of `bot.html`. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from bot.html import Shown, What
from bot.message import PICTURE, Picture
from bot.sandbox.model import Posted, ShownView
from bot.sandbox.workspace import Workspace


def cards(space: Workspace, user: str, channel: str) -> Iterator[Shown]:
    """The channel, each message with its thread; then what only *user* sees; then forms and the Home tab."""
    posts = space.messages.get(channel, ())
    for post in posts:
        if post.shown_in_channel():
            yield _message(space, post, "message")
            yield from (_message(space, each, "reply") for each in posts if _answers(each, post))
    for post in space.ephemerals:
        if post.seen_by == user and post.channel == channel:
            yield _message(space, post, "ephemeral")
    for view in space.views.values():
        if view.open and view.user == user and view.body.get("type") == "modal":
            yield _view(space, view, "modal")
    if home := space.homes.get(user):
        yield _view(space, home, "home")


def _answers(reply: Posted, parent: Posted) -> bool:
    return reply.thread_ts == parent.ts and reply is not parent and not reply.shown_in_channel()


def _message(space: Workspace, post: Posted, what: What) -> Shown:
    return _shown(space, what, {"text": post.text, "blocks": list(post.blocks)})


def _view(space: Workspace, view: ShownView, what: What) -> Shown:
    return _shown(space, what, view.body)


def _shown(space: Workspace, what: What, payload: Mapping[str, Any]) -> Shown:
    """With the uploaded picture that it names, of which a page can show one."""
    payload = copy.deepcopy(dict(payload))
    picture = None
    for block in payload.get("blocks") or ():
        named = block.get("slack_file")
        file = space.files.get(str(named.get("id", ""))) if named else None
        if file is not None and picture is None:
            picture = Picture(file.data, file.name, file.alt_text)
            block["slack_file"] = PICTURE
    return Shown(what, payload, picture)
