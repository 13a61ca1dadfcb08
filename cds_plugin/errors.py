"""The two kinds of failure: `Refused` (same input, same answer) and `Unavailable` (try again later)."""

from __future__ import annotations


class CdsError(Exception):
    """Base of every failure that leaves a room of this product.

    `code` is a stable snake_case name, `message` says what is wrong without patient data,
    `action` says who should do what about it.
    """

    def __init__(self, code: str, message: str, action: str) -> None:
        super().__init__(f"{message} [{code}] {action}")
        self.code = code
        self.message = message
        self.action = action

    def __reduce__(self) -> tuple[type[CdsError], tuple[str, str, str]]:
        return type(self), (self.code, self.message, self.action)

    def as_json(self) -> dict[str, str]:
        """Return the three fields as the command line prints them."""
        return {"code": self.code, "message": self.message, "action": self.action}


class Refused(CdsError):
    """The input can never be accepted; retrying gives the same answer."""


class Unavailable(CdsError):
    """Something outside is missing for now (a peer, a disk, the broker); retry later."""
