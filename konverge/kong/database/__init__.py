"""A gateway with a database: what it holds is read, compared, and changed entity by entity.

Only entities that carry the fleet's tag are read, changed or deleted; everything else in the database is somebody
else's. :func:`plan` reads and compares, :func:`apply` does what a plan says, :func:`undo` takes it back.
"""

from konverge.kong.database.applying import Applied, Failure, Journal, apply, validate
from konverge.kong.database.calling import AdminCaller, Caller, Reply
from konverge.kong.database.marking import mark_document, owner_tag, read_hash
from konverge.kong.database.operations import Action, Operation, Plan
from konverge.kong.database.passwords import read_passwords
from konverge.kong.database.planning import plan
from konverge.kong.database.reading import read_stored_hash
from konverge.kong.database.undoing import Undone, undo

__all__ = [
    "Action",
    "AdminCaller",
    "Applied",
    "Caller",
    "Failure",
    "Journal",
    "Operation",
    "Plan",
    "Reply",
    "Undone",
    "apply",
    "mark_document",
    "owner_tag",
    "plan",
    "read_hash",
    "read_passwords",
    "read_stored_hash",
    "undo",
    "validate",
]
