"""No cheat: what every other one is measured against."""

from model import finish, honest

finish(honest())
