-- Different requests in one round trip and one transaction, each answered by itself.
-- The locks are those of claim.sql: all consumers first, in order. Who holds a host or a pool already waits for neither: what others
-- are claiming from at that moment is not waited for, and an answer may be that it was contended.

-- Claims a host for each consumer by its own request; the n-th request is for the n-th consumer.
-- Rows: one a consumer, in their order, each as claim() would answer for it alone; what claim() raises is in error and detail instead:
-- error is its SQLSTATE (22023: the request makes no sense; VC001: the consumer has a claim that is not true to it, which detail has as
-- JSON; 40001: others were always there first, claim again), detail the message.
CREATE OR REPLACE FUNCTION vacancy.claim_many(consumers uuid[], requests jsonb[])
RETURNS TABLE (
  consumer uuid,
  host_id text,
  host_name text,
  claimed_at timestamptz,
  expires_at timestamptz,
  already boolean,
  contended integer,
  refusal jsonb,
  held jsonb,
  error text,
  detail text
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
  max_age text := coalesce(current_setting('vacancy.max_age', true), '');
  prepared vacancy.request;
  draws_gb bigint;
  held_pools jsonb := '{}';
  holds_host boolean := false;
  standing record;
  told jsonb;
  result record;
  setting text;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    -- An older snapshot would not see what was claimed meanwhile.
    RAISE EXCEPTION 'claim_many() needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
  END IF;
  IF coalesce(cardinality(consumers), 0) NOT BETWEEN 1 AND 64 OR array_position(consumers, NULL) IS NOT NULL
    OR cardinality(requests) IS DISTINCT FROM cardinality(consumers)
    OR vacancy.lock_consumers(consumers) <> cardinality(consumers) THEN
    RAISE EXCEPTION 'consumers must be 1 to 64 different ids, and requests as many' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- What is no amount is refused below.
  SELECT coalesce(sum(greatest(least((asked->>'disk_gb')::numeric, 1e15), 0)), 0)::bigint INTO draws_gb
  FROM unnest(requests) AS asked WHERE jsonb_typeof(asked->'disk_gb') = 'number';
  FOR place IN 1..cardinality(consumers) LOOP
    consumer := consumers[place];
    host_id := NULL;
    host_name := NULL;
    claimed_at := NULL;
    expires_at := NULL;
    already := NULL;
    refusal := NULL;
    held := NULL;
    error := NULL;
    detail := NULL;
    contended := 0;
    BEGIN
      setting := set_config('vacancy.max_age', max_age, true);
      prepared := vacancy.prepare_request(coalesce(requests[place], '{}'));
      SELECT c.host_id, i.name, c.claimed_at, c.expires_at, c.held INTO standing
      FROM vacancy.claim AS c LEFT JOIN vacancy.host_inventory AS i ON i.host_id = c.host_id
      WHERE c.consumer = consumers[place];
      IF standing.expires_at > statement_timestamp() THEN
        told := (
          SELECT jsonb_agg(jsonb_build_object('consumer', d.consumer, 'host_id', d.host_id, 'host_name', i.name, 'differs', d.differs))
          FROM vacancy.contradictions(prepared, ARRAY[consumers[place]]) AS d
          LEFT JOIN vacancy.host_inventory AS i ON i.host_id = d.host_id
        );
        IF told IS NOT NULL THEN
          RAISE EXCEPTION 'the consumer has a claim that is not true to the request' USING ERRCODE = 'VC001', DETAIL = told;
        END IF;
        host_id := standing.host_id;
        host_name := standing.name;
        claimed_at := standing.claimed_at;
        expires_at := standing.expires_at;
        held := standing.held;
        already := true;
      ELSE
        IF standing.expires_at IS NOT NULL THEN
          PERFORM vacancy.delete_expired(ARRAY[consumers[place]]);
        END IF;
        result := vacancy.claim_host(prepared, consumers[place], draws_gb, holds_host, held_pools);
        contended := result.contended;
        IF result.host IS NULL THEN
          IF vacancy.other_reservations(ARRAY[consumers[place]]) IS NOT NULL THEN
            RAISE EXCEPTION 'bulk claims under way have reserved what would fit' USING ERRCODE = 'serialization_failure';
          END IF;
          refusal := result.refusal || '{"claimable": 0, "count": 1}';
        ELSE
          host_id := result.host;
          SELECT i.name INTO host_name FROM vacancy.host_inventory AS i WHERE i.host_id = result.host;
          claimed_at := result.claimed_at;
          expires_at := result.expires_at;
          held := result.held;
          already := false;
          holds_host := true;
        END IF;
        held_pools := result.held_pools;
      END IF;
    EXCEPTION
      -- This request's alone; what it locked is free again.
      WHEN serialization_failure OR data_exception OR SQLSTATE 'VC001' THEN
        error := SQLSTATE;
        GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
        detail := coalesce(nullif(detail, ''), SQLERRM);
    END;
    RETURN NEXT;
  END LOOP;
  IF random() < cardinality(consumers) / 16.0 THEN
    PERFORM vacancy.sweep_claims();
  END IF;
END
$$;

REVOKE ALL ON FUNCTION vacancy.claim_many(uuid[], jsonb[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION vacancy.claim_many(uuid[], jsonb[]) TO vacancy_scheduler;
