"""Triggers that refuse to change or remove audit rows, in the words of each database.

They stop mistakes and ordinary users. Who owns the database can drop them; what happens then, `verify` names.
"""

from __future__ import annotations

CONTENT = ("id", "at", "event", "actor", "study_instance_uid", "sop_instance_uid", "outcome", "detail")
REFUSAL = "the audit trail is append-only"


def _sqlite(name: str, when: str, condition: str) -> str:
    return (
        f"CREATE TRIGGER {name} {when} FOR EACH ROW WHEN {condition} "
        f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    )


def _postgresql(name: str, when: str, condition: str) -> str:
    return (
        f"CREATE TRIGGER {name} {when} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse_audit_change()"
    )


def _differs(operator: str) -> str:
    return " OR ".join(f"NEW.{column} {operator} OLD.{column}" for column in CONTENT)


SQLITE = (
    _sqlite("audit_no_delete", "BEFORE DELETE ON audit", "1"),
    _sqlite("audit_no_update", "BEFORE UPDATE ON audit", f"OLD.seq IS NOT NULL OR {_differs('IS NOT')}"),
    _sqlite(
        "audit_no_replace",
        "BEFORE INSERT ON audit",
        "NEW.seq IS NOT NULL OR EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)",
    ),
    _sqlite("audit_head_no_delete", "BEFORE DELETE ON audit_head", "1"),
    _sqlite("audit_head_no_insert", "BEFORE INSERT ON audit_head", "1"),
    _sqlite(
        "audit_head_forward", "BEFORE UPDATE ON audit_head", "NEW.seq <= OLD.seq OR NEW.id IS NOT OLD.id"
    ),
)

POSTGRESQL = (
    "CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$",
    _postgresql("audit_no_delete", "BEFORE DELETE ON audit", "true"),
    _postgresql(
        "audit_no_update",
        "BEFORE UPDATE ON audit",
        f"OLD.seq IS NOT NULL OR {_differs('IS DISTINCT FROM')}",
    ),
    _postgresql("audit_no_sealed_insert", "BEFORE INSERT ON audit", "NEW.seq IS NOT NULL"),
    "CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit EXECUTE FUNCTION refuse_audit_change()",
    _postgresql("audit_head_no_delete", "BEFORE DELETE ON audit_head", "true"),
    _postgresql("audit_head_no_insert", "BEFORE INSERT ON audit_head", "true"),
    _postgresql(
        "audit_head_forward",
        "BEFORE UPDATE ON audit_head",
        "NEW.seq <= OLD.seq OR NEW.id IS DISTINCT FROM OLD.id",
    ),
    "CREATE TRIGGER audit_head_no_truncate BEFORE TRUNCATE ON audit_head "
    "EXECUTE FUNCTION refuse_audit_change()",
)
