"""What the server says beside the stream and a stream must not pass over in silence."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from outlast.extend import Once

if TYPE_CHECKING:
    from psycopg.errors import Diagnostic

    from outlast.changes._slot.troubles import Names

logger = logging.getLogger("outlast.changes")


class PublicationNotice:
    """Tells, once a session, that the server leaves changes out because the publication was not there when they were made.

    PostgreSQL 18 only warns of it, and goes on; older ones end the session (`Meaning.PUBLICATION_MISSING`).
    """

    def __init__(self, stream: str, names: Names) -> None:
        """Speak of this stream and of these names."""
        self._stream, self._names = stream, names
        self._once = Once()

    def __call__(self, notice: Diagnostic) -> None:
        """Take a notice of the session."""
        if notice.source_function != "LoadPublications" or not self._once.news():
            return
        logger.error(
            "changes %s: the server leaves out what changes while there is no publication %s; "
            "look for it (SELECT * FROM pg_publication), CREATE PUBLICATION again, and take a new snapshot of what was left out",
            self._stream,
            self._names.publication,
        )
