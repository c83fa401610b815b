"""PostgreSQL: connections, migrations, and the rows of the view ``schedulable_host``.

The SQL itself is in ``schemas``; claims are in ``connectors.scheduler``.
"""
