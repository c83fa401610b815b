-- What a claim takes of the memory that the kernel measures is computed once, when the claim is made, and not at each look at its host.

-- MiB in huge pages that a claim holds (claim.held, which has keys such as "numa 0 pages 2048"), as memory_mb_in_pages() counts
-- them. In plpgsql, so that an INSERT does not try each time whether it could become part of the statement.
CREATE OR REPLACE FUNCTION vacancy.claimed_mb_in_pages(held jsonb) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  RETURN (
    SELECT greatest(least(coalesce(sum(trunc(size.kb::numeric * size.amount::numeric / 1024)), 0), 1e18), 0)::bigint
    FROM (
      SELECT split_part(part.key, ' ', 4) AS kb, part.value AS amount
      FROM jsonb_each_text(held) AS part WHERE part.key LIKE 'numa % pages %'
    ) AS size
    WHERE CASE WHEN size.kb ~ '^[0-9]{4,12}$' THEN size.kb::bigint >= 1024 END
  );
END
$$;

REVOKE ALL ON FUNCTION vacancy.claimed_mb_in_pages(jsonb) FROM PUBLIC, vacancy_scheduler, vacancy_reader;

ALTER TABLE vacancy.claim ADD COLUMN memory_mb_not_in_pages integer GENERATED ALWAYS AS (
  CASE WHEN held IS NULL THEN memory_mb ELSE greatest(memory_mb - vacancy.claimed_mb_in_pages(held), 0)::integer END
) STORED;

COMMENT ON COLUMN vacancy.claim.memory_mb_not_in_pages IS 'MiB of memory_mb that are in no huge pages: what the claim takes of memory_mb_available.';

-- Their parameters or results are others.
DROP FUNCTION IF EXISTS
  vacancy.best_of_sample(vacancy.request, integer, boolean), vacancy.claim_host(vacancy.request, uuid, bigint, boolean, jsonb);
