"""The methods of the Web API that the loopback Slack knows: token, scope, tier, arguments and what each one does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bot.blocks import Surface
from bot.sandbox.model import Channel, File, Payload, Posted, Refusal, ShownView
from bot.sandbox.workspace import APP_ID, BOT_ID, BOT_USER, DOMAIN, TEAM, Workspace, is_picture, private_url, truth

SCOPES = frozenset({"commands", "chat:write", "files:write", "users:read"})
"""What an app needs at least to command runs and post."""

HISTORY = frozenset({"channels:history", "groups:history"})
"""Optional: only with these an app finds its own message again by its metadata."""

Do = Callable[[Workspace, Mapping[str, Any]], Payload]


@dataclass(frozen=True, slots=True)
class Method:
    """
    One method.

    Attributes:
        do: Does it, or raises `Refusal`; what it returns is added to `ok: true`.
        tier: Of the rate limits; 0: not limited.
        scope: Needed of a bot token. `*:history` and `*:read` stand for channels, groups or im by the channel named.
        required: Arguments without which nothing is done.
    """

    do: Do
    tier: int
    scope: str = ""
    required: tuple[str, ...] = ()
    token: Literal["xoxb-", "xapp-"] = "xoxb-"

    def scope_for(self, space: Workspace, args: Mapping[str, Any]) -> str:
        """Name the scope that these arguments need."""
        if not self.scope.startswith("*"):
            return self.scope
        channel = space.channel(str(args.get("channel", "")))
        kind = "im" if channel.im_with else "groups" if channel.is_private else "channels"
        return self.scope.replace("*", kind)


def message_of(space: Workspace, posted: Posted, *, metadata: bool = False) -> Payload:
    """Write a message as Slack does. Metadata comes only when it is asked for."""
    body: Payload = {
        "type": "message",
        "user": posted.user,
        "ts": posted.ts,
        "text": posted.text,
        "team": TEAM,
        "blocks": copy.deepcopy(list(posted.blocks)),
    }
    if posted.user == BOT_USER:
        body |= {"bot_id": BOT_ID, "app_id": APP_ID}
    if posted.attachments:
        body["attachments"] = copy.deepcopy(list(posted.attachments))
    if posted.thread_ts:
        body["thread_ts"] = posted.thread_ts
    elif replies := [each for each in space.messages.get(posted.channel, ()) if each.thread_ts == posted.ts]:
        body |= {"thread_ts": posted.ts, "reply_count": len(replies)}
    if posted.edits:
        body["edited"] = {"user": posted.user, "ts": posted.ts}
    if posted.files:
        body["files"] = [file_of(space, file) for file in posted.files]
    if metadata and posted.metadata is not None:
        body["metadata"] = copy.deepcopy(posted.metadata)
    return body


def file_of(space: Workspace, file: File) -> Payload:
    """Write a file as Slack does: what kind it is and its thumbnails are there once it has been looked at."""
    body: Payload = {
        "id": file.id,
        "name": file.name,
        "title": file.title,
        "user": file.user,
        "size": file.length,
        "mimetype": "",
        "filetype": "",
        "url_private": private_url(file),
        "alt_txt": file.alt_text,
    }
    if space.ready(file):
        body["mimetype"] = "image/png" if is_picture(file) else "text/plain"
        body["filetype"] = "png" if is_picture(file) else "text"
        if is_picture(file):
            body["thumb_64"] = private_url(file)
    return body


def view_of(shown: ShownView, state: Payload | None = None) -> Payload:
    """Write a view as Slack does."""
    body = copy.deepcopy(shown.body)
    plain = {name: body.get(name, "") for name in ("private_metadata", "callback_id", "external_id")}
    optional = {name: body.get(name) for name in ("title", "submit", "close")}
    flags = {name: body.get(name, False) for name in ("clear_on_close", "notify_on_close")}
    return {
        **body,
        **plain,
        **optional,
        **flags,
        "id": shown.id,
        "team_id": TEAM,
        "app_id": APP_ID,
        "bot_id": BOT_ID,
        "hash": shown.hash,
        "state": {"values": state or {}},
        "root_view_id": shown.root or shown.id,
        "previous_view_id": shown.previous,
        "app_installed_team_id": TEAM,
    }


def channel_of(channel: Channel) -> Payload:
    """Write a channel as Slack does."""
    return {
        "id": channel.id,
        "name": channel.name,
        "is_channel": not channel.im_with,
        "is_im": bool(channel.im_with),
        "is_private": channel.is_private,
        "is_archived": channel.is_archived,
        "is_member": BOT_USER in channel.members,
        "context_team_id": TEAM,
    }


def _page(items: Sequence[Any], args: Mapping[str, Any], most: int = 100) -> tuple[list[Any], Payload]:
    """Cut one page out of *items*; the cursor is where the next one begins."""
    try:
        start, size = int(args.get("cursor") or 0), min(int(args.get("limit") or most), 999)
    except ValueError:
        raise Refusal("invalid_cursor") from None
    more = start + size < len(items)
    return list(items[start : start + size]), {"next_cursor": str(start + size) if more else ""}


def _auth_test(_space: Workspace, _args: Mapping[str, Any]) -> Payload:
    return {
        "url": f"https://{DOMAIN}.slack.com/",
        "team": DOMAIN,
        "user": "nightshift",
        "team_id": TEAM,
        "user_id": BOT_USER,
        "bot_id": BOT_ID,
        "is_enterprise_install": False,
    }


def _post(space: Workspace, args: Mapping[str, Any]) -> Payload:
    channel = space.writable(str(args["channel"]))
    posted = space.post(channel.id, args)
    return {"channel": channel.id, "ts": posted.ts, "message": message_of(space, posted, metadata=True)}


def _update(space: Workspace, args: Mapping[str, Any]) -> Payload:
    space.writable(str(args["channel"]))
    posted = space.own(str(args["channel"]), str(args["ts"]))
    space.edit(posted, args)
    return {
        "channel": posted.channel,
        "ts": posted.ts,
        "text": posted.text,
        "message": message_of(space, posted, metadata=True),
    }


def _delete(space: Workspace, args: Mapping[str, Any]) -> Payload:
    posted = space.own(str(args["channel"]), str(args["ts"]))
    space.delete(posted)
    return {"channel": posted.channel, "ts": posted.ts}


def _whisper(space: Workspace, args: Mapping[str, Any]) -> Payload:
    channel = space.writable(str(args["channel"]))
    if args["user"] not in channel.members:
        raise Refusal("user_not_in_channel")
    return {"message_ts": space.whisper(channel.id, args, str(args["user"])).ts}


def _permalink(space: Workspace, args: Mapping[str, Any]) -> Payload:
    channel, ts = space.channel(str(args["channel"])).id, str(args["message_ts"])
    if space.find(channel, ts) is None:
        raise Refusal("message_not_found")
    link = f"https://{DOMAIN}.slack.com/archives/{channel}/p{ts.replace('.', '')}"
    return {"channel": channel, "permalink": link}


def _history(space: Workspace, args: Mapping[str, Any]) -> Payload:
    channel = space.channel(str(args["channel"]))
    if BOT_USER not in channel.members:
        raise Refusal("not_in_channel")
    shown = [posted for posted in space.messages.get(channel.id, ()) if posted.shown_in_channel()]
    return _messages(space, list(reversed(_between(shown, args))), args)


def _replies(space: Workspace, args: Mapping[str, Any]) -> Payload:
    channel, ts = space.channel(str(args["channel"])), str(args["ts"])
    if BOT_USER not in channel.members:
        raise Refusal("not_in_channel")
    if space.find(channel.id, ts) is None:
        raise Refusal("thread_not_found")
    thread = [posted for posted in space.messages[channel.id] if ts in (posted.ts, posted.thread_ts)]
    return _messages(space, _between(thread, args), args)


def _between(messages: Sequence[Posted], args: Mapping[str, Any]) -> list[Posted]:
    oldest, latest = float(args.get("oldest") or 0), float(args.get("latest") or "inf")
    inclusive = truth(args.get("inclusive"))
    edges = (oldest, latest) if inclusive else ()
    return [each for each in messages if oldest < float(each.ts) < latest or float(each.ts) in edges]


def _messages(space: Workspace, messages: Sequence[Posted], args: Mapping[str, Any]) -> Payload:
    page, cursor = _page(messages, args)
    metadata = truth(args.get("include_all_metadata"))
    return {
        "messages": [message_of(space, each, metadata=metadata) for each in page],
        "has_more": bool(cursor["next_cursor"]),
        "response_metadata": cursor,
    }


def _info(space: Workspace, args: Mapping[str, Any]) -> Payload:
    return {"channel": channel_of(space.channel(str(args["channel"])))}


def _members(space: Workspace, args: Mapping[str, Any]) -> Payload:
    page, cursor = _page(sorted(space.channel(str(args["channel"])).members), args)
    return {"members": page, "response_metadata": cursor}


def _open_direct(space: Workspace, args: Mapping[str, Any]) -> Payload:
    return {"channel": {"id": space.direct(str(args["users"])).id}}


def _user(space: Workspace, args: Mapping[str, Any]) -> Payload:
    person = space.person(str(args["user"]))
    body: Payload = {
        "id": person.id,
        "team_id": person.team_id or TEAM,
        "name": person.name,
        "real_name": person.name,
        "deleted": person.deleted,
        "is_bot": person.is_bot,
        "is_restricted": bool(person.guest),
        "is_ultra_restricted": person.guest == "single",
        "profile": {"display_name": person.name, "real_name": person.name},
    }
    if person.tz:
        body["tz"] = person.tz
    return {"user": body}


def _group(space: Workspace, args: Mapping[str, Any]) -> Payload:
    if args["usergroup"] not in space.groups:
        raise Refusal("no_such_subteam")
    return {"users": list(space.groups[args["usergroup"]])}


def _open(space: Workspace, args: Mapping[str, Any]) -> Payload:
    return {"view": view_of(space.open_view(str(args["trigger_id"]), _object(args, "view")))}


def _push(space: Workspace, args: Mapping[str, Any]) -> Payload:
    return {"view": view_of(space.open_view(str(args["trigger_id"]), _object(args, "view"), push=True))}


def _update_view(space: Workspace, args: Mapping[str, Any]) -> Payload:
    _object(args, "view")
    return {"view": view_of(space.update_view(args))}


def _publish(space: Workspace, args: Mapping[str, Any]) -> Payload:
    return {"view": view_of(space.publish(str(args["user_id"]), _object(args, "view"), args.get("hash")))}


def _object(args: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = args[name]
    if not isinstance(value, Mapping):
        raise Refusal("invalid_arguments", f"[ERROR] must be an object [json-pointer:/{name}]")
    return value


def _announce(space: Workspace, args: Mapping[str, Any]) -> Payload:
    length = str(args["length"])
    file = space.start_upload(
        str(args["filename"]), int(length) if length.isdigit() else 0, str(args.get("alt_txt", ""))
    )
    return {"upload_url": f"/upload/v1/{file.id}", "file_id": file.id}


def _complete(space: Workspace, args: Mapping[str, Any]) -> Payload:
    named = args["files"]
    if not isinstance(named, list) or not all(
        isinstance(each, dict) and each.get("id") in space.files for each in named
    ):
        raise Refusal("file_not_found")
    files = [space.files[each["id"]] for each in named]
    for file, each in zip(files, named, strict=True):
        space.complete_upload(file, str(each.get("title") or file.name), BOT_USER)
    if args.get("channel_id"):
        space.share(files, args)
    return {"files": [file_of(space, file) for file in files]}


def _file(space: Workspace, args: Mapping[str, Any]) -> Payload:
    file = space.files.get(str(args["file"]))
    if file is None or file.ready_at is None:
        raise Refusal("file_not_found")
    return {"file": file_of(space, file)}


def _validate(space: Workspace, args: Mapping[str, Any]) -> Payload:
    given = [name for name in ("blocks", "message", "view") if args.get(name) is not None]
    if len(given) != 1:
        raise Refusal("invalid_arguments", "[ERROR] exactly one of blocks, message, view is needed")
    if given == ["view"]:
        view = _object(args, "view")
        surface: Surface = "home" if view.get("type") == "home" else "modal"
        space.check(view, surface)
    else:
        message = _object(args, "message") if given == ["message"] else {"text": "text", "blocks": args["blocks"]}
        space.check(message, "message")
    return {}


def _connect(space: Workspace, _args: Mapping[str, Any]) -> Payload:
    return {"url": f"/link/?ticket={space.new_id('k')}&app_id={APP_ID}"}


METHODS: dict[str, Method] = {
    "auth.test": Method(_auth_test, 5),
    "apps.connections.open": Method(_connect, 3, "connections:write", token="xapp-"),
    "blocks.validate": Method(_validate, 3),
    "chat.postMessage": Method(_post, 1, "chat:write", ("channel",)),
    "chat.postEphemeral": Method(_whisper, 4, "chat:write", ("channel", "user")),
    "chat.update": Method(_update, 3, "chat:write", ("channel", "ts")),
    "chat.delete": Method(_delete, 3, "chat:write", ("channel", "ts")),
    "chat.getPermalink": Method(_permalink, 0, "", ("channel", "message_ts")),
    "conversations.history": Method(_history, 3, "*:history", ("channel",)),
    "conversations.replies": Method(_replies, 3, "*:history", ("channel", "ts")),
    "conversations.info": Method(_info, 3, "*:read", ("channel",)),
    "conversations.members": Method(_members, 4, "*:read", ("channel",)),
    "conversations.open": Method(_open_direct, 3, "im:write", ("users",)),
    "files.getUploadURLExternal": Method(_announce, 4, "files:write", ("filename", "length")),
    "files.completeUploadExternal": Method(_complete, 4, "files:write", ("files",)),
    "files.info": Method(_file, 4, "files:read", ("file",)),
    "users.info": Method(_user, 4, "users:read", ("user",)),
    "usergroups.users.list": Method(_group, 2, "usergroups:read", ("usergroup",)),
    "views.open": Method(_open, 4, "", ("trigger_id", "view")),
    "views.push": Method(_push, 4, "", ("trigger_id", "view")),
    "views.update": Method(_update_view, 4, "", ("view",)),
    "views.publish": Method(_publish, 4, "", ("user_id", "view")),
}
