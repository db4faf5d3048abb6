"""Everything that can go wrong in the bot and that its caller must act on."""

from __future__ import annotations


class BotError(Exception):
    """Base of all errors raised by this package."""


class SignInRefused(BotError):
    """Slack does not take a token. *variable* is where it comes from, *error* Slack's word; the token is not in it."""

    def __init__(self, variable: str, error: str, remedy: str) -> None:
        self.variable, self.error = variable, error
        super().__init__(f"Slack does not take the token in {variable} ({error}): {remedy}")


class NotConfigured(BotError):
    """A token or a setting is missing or of the wrong kind; one sentence with the remedy."""
