"""The hash chain over audit rows: what a row's hash covers, and what is wrong with a sequence of rows. Pure.

A row's hash is SHA-256 over the canonical JSON of all its fields but the row id, among them its place
(`seq`) and the hash of the row before. Whoever changes, removes, inserts or swaps rows and does not
recompute every later hash and the stored head is found out; someone who recomputes all of it is found out
only by a head that was noted elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

GENESIS = "0" * 64
"""What the first row has for the hash of the row before it."""


@dataclass(frozen=True, slots=True)
class Content:
    """The fields of an audit row as the database keeps them: `at` and `detail` as their stored text."""

    at: str
    event: str
    actor: str
    study_instance_uid: str | None
    sop_instance_uid: str | None
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """A row with its place in the chain."""

    seq: int
    content: Content
    previous_hash: str
    hash: str


@dataclass(frozen=True, slots=True)
class Head:
    """The last row of a chain; seq 0 and GENESIS before the first."""

    seq: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class Walked:
    """How far a chain holds: the last good row, and the first bad one with what is wrong about it."""

    head: Head
    first_bad_seq: int | None = None
    problem: str | None = None


def hash_of(seq: int, content: Content, previous_hash: str) -> str:
    """Return the hash that a row of this content has in this place, 64 hexadecimal digits."""
    fields = {
        "seq": seq,
        "at": content.at,
        "event": content.event,
        "actor": content.actor,
        "study_instance_uid": content.study_instance_uid,
        "sop_instance_uid": content.sop_instance_uid,
        "outcome": content.outcome,
        "detail": content.detail,
        "previous_hash": previous_hash,
    }
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), default=repr)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def link(head: Head, content: Content) -> Sealed:
    """Return the row that follows `head`."""
    seq = head.seq + 1
    return Sealed(seq, content, head.hash, hash_of(seq, content, head.hash))


def walk(rows: Iterable[Sealed]) -> Walked:
    """Follow rows in order of `seq` from the beginning; stop at the first that does not fit."""
    head = Head()
    for row in rows:
        problem = _problem(row, head)
        if problem is not None:
            return Walked(head, head.seq + 1, problem)
        head = Head(row.seq, row.hash)
    return Walked(head)


def compare_heads(reached: Head, stored: Head | None) -> Walked:
    """Return whether the stored head is the one that the rows lead to."""
    if stored is None:
        return Walked(reached, reached.seq or 1, "the stored head is gone")
    if stored.seq > reached.seq:
        return Walked(
            reached, reached.seq + 1, f"rows {reached.seq + 1} to {stored.seq} are missing at the end"
        )
    if stored.seq < reached.seq:
        return Walked(reached, stored.seq + 1, f"row {stored.seq + 1} was inserted after the stored head")
    if stored.hash != reached.hash:
        return Walked(reached, reached.seq or 1, "the stored head has another hash than the last row")
    return Walked(reached)


def _problem(row: Sealed, before: Head) -> str | None:
    expected = before.seq + 1
    if not isinstance(row.seq, int) or row.seq < expected:
        return f"a row was inserted beside row {before.seq}"
    if row.seq > expected:
        return f"row {expected} is missing"
    if row.previous_hash != before.hash:
        return f"row {expected} does not follow row {before.seq}: inserted or re-ordered"
    if row.hash != hash_of(row.seq, row.content, row.previous_hash):
        return f"row {expected} was changed"
    return None
