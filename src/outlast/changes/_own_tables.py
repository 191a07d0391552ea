"""The tables that streams and their sinks keep for themselves, in a schema of their own; made when they are first needed.

A publication of all tables has them as well. What is noted in them holds for the database that they are in: carried on by a
stream, it would overwrite what the next sink has noted under the same name. So no stream passes it on, change by change, since a
sink notes its position in the transaction that has the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast.changes._decoding.messages import Relation

if TYPE_CHECKING:
    from collections.abc import Mapping

OWN_TABLES: Final[Mapping[str, frozenset[str]]] = {
    "change_epochs": frozenset({"stream", "epoch", "owner", "taken_at"}),
    "epochs": frozenset({"name", "epoch", "owner", "taken_at"}),
    "formats": frozenset({"system", "format", "applied_at"}),
    "change_positions": frozenset({"stream", "lsn", "epoch", "updated_at"}),
    "snapshot_ranges": frozenset({"stream", "origin", "place", "table_schema", "table_name", "number", "position", "done"}),
}
"""All of them, by name, and columns that each of them has in every version. The tables of jobs are none of them: what
they hold is the user's."""


class OwnTables:
    """The tables that a stream leaves out: ours in its own schema, in that of its sink, and in any other.

    A database may hold those of several streams and mirrors, each in a schema of its own; there they are known by their
    columns. A table in another schema that has no more than the name in common is somebody else's, and passes.
    """

    def __init__(self, schema: str, sink: object = None) -> None:
        theirs = getattr(sink, "schema", None)
        self.schemas = frozenset({schema, theirs} if isinstance(theirs, str) else {schema})

    def __contains__(self, relation: object) -> bool:
        """Return whether it is one of them."""
        if not isinstance(relation, Relation) or relation.name not in OWN_TABLES:
            return False
        return relation.schema in self.schemas or OWN_TABLES[relation.name].issubset(relation.names)
