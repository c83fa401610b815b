#!/bin/sh
# The JobManager with the job in it (application mode), from the newest checkpoint or savepoint that is complete. Without
# high availability that is how a JobManager that is started again goes on where it was.
set -eu
newest="$(ls -t "$STATE"/checkpoints/*/chk-*/_metadata "$STATE"/savepoints/*/_metadata 2>/dev/null | head -n 1)"
exec standalone-job.sh start-foreground ${newest:+--fromSavepoint "file://${newest%/_metadata}"} \
    --job-classname org.apache.flink.client.python.PythonDriver \
    -pyclientexec python -py "$(python -c 'from importlib.util import find_spec as find; print(find("vacancy.jobs.flink.entry_point").origin)')"
