-- Every source of figures and whether it is heard.
-- Grain: one row a source that speaks for a host that is not retired. Hosts that an operator has disabled may be switched
-- off, so their silence says nothing; storage pools are disabled for instances always.
CREATE OR REPLACE VIEW vacancy.source AS
SELECT
  s.source,
  count(*) AS hosts,
  count(*) FILTER (WHERE s.expected) AS hosts_expected,
  count(*) FILTER (WHERE s.expected AND (s.age > s.max_age OR s.age IS NULL)) AS hosts_silent,
  extract(epoch FROM min(s.age))::double precision AS age_min_seconds,
  extract(epoch FROM max(s.age) FILTER (WHERE s.expected))::double precision AS age_max_seconds
FROM (
  SELECT
    coalesce(i.source, 'unknown') AS source,
    i.status = 'ENABLED' OR 'MISC_SHARES_VIA_AGGREGATE' = ANY (i.traits) AS expected,
    CASE WHEN NOT h.clock_ahead THEN statement_timestamp() - h.observed_at END AS age,
    (SELECT vacancy.max_age()) AS max_age
  FROM vacancy.host_inventory AS i
  LEFT JOIN vacancy.host AS h ON h.host_id = i.host_id
  WHERE NOT i.retired
) AS s
GROUP BY s.source;

COMMENT ON VIEW vacancy.source IS 'One row per source: how many hosts it reports, and how long ago they last reported.';
COMMENT ON COLUMN vacancy.source.hosts_expected IS 'Those that should report: enabled hosts, and storage pools.';
COMMENT ON COLUMN vacancy.source.hosts_silent IS 'How many of them are older than vacancy.max_age(), or have no usage.';
COMMENT ON COLUMN vacancy.source.age_min_seconds IS 'Age of the newest row of any of its hosts. Null: none has reported.';

GRANT SELECT ON vacancy.source TO vacancy_reader;
