#!/bin/sh
# Starts the JobManager with the job (application mode) from the newest complete checkpoint or savepoint. Without high
# availability, a restarted JobManager resumes only this way.
set -eu
newest="$(ls -t "$STATE"/checkpoints/*/chk-*/_metadata "$STATE"/savepoints/*/_metadata 2>/dev/null | head -n 1)"
exec standalone-job.sh start-foreground ${newest:+--fromSavepoint "file://${newest%/_metadata}"} \
    --job-classname org.apache.flink.client.python.PythonDriver \
    -pyclientexec python -py "$(python -c 'from importlib.util import find_spec as find; print(find("vacancy.jobs.flink.entry_point").origin)')"
