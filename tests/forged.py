"""Change a campaign's log as no method of a campaign does."""

import sqlite3

from skadma.labelling.campaign.event_log import DATABASE, SCHEMA, EventLog

TRIGGERS = [statement for statement in SCHEMA if "TRIGGER" in statement]


def change_log(folder, *statements, signed=True):
    """Run statements; if `signed`, the digests fit what the log has then."""
    connection = sqlite3.connect(folder / DATABASE, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")  # of a test, so it need not last
    for statement in TRIGGERS:
        connection.execute(f"DROP TRIGGER {statement.split()[2]}")
    for statement in statements:
        connection.execute(*([statement] if isinstance(statement, str) else statement))
    if signed:
        connection.execute("DELETE FROM digests")
    for statement in TRIGGERS:
        connection.execute(statement)
    if signed:
        # Its own way to write digests, on a log that may be none otherwise.
        log = EventLog.__new__(EventLog)
        log.path, log._connection = folder / DATABASE, connection
        log.rows = lambda *values: connection.execute(values[0], values[1:]).fetchall()
        log._add_digests()
    connection.close()
