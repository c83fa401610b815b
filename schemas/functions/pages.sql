-- Memory in huge pages, which the kernel sets aside: what is in them is not taken of the memory that is available.

-- MiB in huge pages, by their size in KiB. Pages of less than 1 MiB are not set aside on most machines, so they count as
-- memory that is not.
CREATE OR REPLACE FUNCTION vacancy.memory_mb_in_pages(pages jsonb) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
  SELECT greatest(least(coalesce(sum(trunc(size.key::numeric * size.value::numeric / 1024)), 0), 1e18), 0)::bigint
  FROM jsonb_each_text(pages) AS size
  WHERE CASE WHEN size.key ~ '^[0-9]{4,12}$' THEN size.key::bigint >= 1024 END
);

REVOKE ALL ON FUNCTION vacancy.memory_mb_in_pages(jsonb) FROM PUBLIC, vacancy_scheduler, vacancy_reader;
