-- Table vacancy.host, with the columns that schemas/usage.py names.
CREATE TEMPORARY TABLE host (
  $host_columns,
  PRIMARY KEY (host_id) NOT ENFORCED
) WITH ($options)
