"""The tables of the catalogue, and how they came to be.

`tables.version` is raised by every change of a table's columns: a writer that knows it knows the columns. `table_fields.stored`
is the column of a field, of type `base`; a field that became NUMBER has a column `other` beside it, for what the first cannot
hold.
Series are found by a digest of their tags, so that no index depends on how long those are. `table_tags` counts the values of each
tag, which `table_tag_values` has: a limit is looked up and not counted again.
"""

from __future__ import annotations

from typing import Final

from outlast.postgres.schema import Tables

_FIRST: Final = """
CREATE TABLE {schema}.tables (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    data_schema text COLLATE "C" NOT NULL,
    stored text COLLATE "C" NOT NULL,
    retention_s float8,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (data_schema, stored)
);
CREATE TABLE {schema}.table_fields (
    table_id bigint NOT NULL REFERENCES {schema}.tables ON DELETE CASCADE,
    number integer NOT NULL,
    name text COLLATE "C" NOT NULL,
    stored text COLLATE "C" NOT NULL,
    type text NOT NULL CHECK (type IN ('integer', 'float', 'number', 'string', 'boolean')),
    base text NOT NULL CHECK (base IN ('integer', 'float', 'string', 'boolean')),
    other text COLLATE "C",
    PRIMARY KEY (table_id, number),
    UNIQUE (table_id, name),
    UNIQUE (table_id, stored),
    CHECK ((type = 'number') = (other IS NOT NULL))
);
CREATE TABLE {schema}.table_series (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_id bigint NOT NULL REFERENCES {schema}.tables ON DELETE CASCADE,
    digest bytea NOT NULL,
    tags jsonb NOT NULL,
    UNIQUE (table_id, digest)
);
CREATE INDEX table_series_order ON {schema}.table_series (table_id, id);
CREATE TABLE {schema}.table_tags (
    table_id bigint NOT NULL REFERENCES {schema}.tables ON DELETE CASCADE,
    tag text COLLATE "C" NOT NULL,
    value_count integer NOT NULL,
    PRIMARY KEY (table_id, tag)
);
CREATE TABLE {schema}.table_tag_values (
    table_id bigint NOT NULL REFERENCES {schema}.tables ON DELETE CASCADE,
    tag text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    PRIMARY KEY (table_id, tag, value)
)
"""

TABLES: Final = Tables("tables", (_FIRST,), ("tables", "data_schema"))
