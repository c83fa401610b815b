-- A request for a host, from JSON to vacancy.request.

-- Whether a JSON object has entries, and each value is a whole number of at least `minimum` that an integer can hold.
CREATE OR REPLACE FUNCTION vacancy.are_amounts(document jsonb, minimum bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
SELECT jsonb_typeof(document) = 'object' AND coalesce((
  SELECT bool_and(CASE WHEN value::text ~ '^[0-9]{1,10}$' THEN value::bigint BETWEEN minimum AND 2147483647 ELSE false END)
  FROM jsonb_each(document)
), false)
$$;

-- The PCI devices that a request asks for, from JSON. Of each demand: `pool`, what a host's pool must contain; `count`;
-- `same_cell`, whether they must be in the NUMA cell of the rest; `name`, which a refusal gives it. Null: none.
CREATE OR REPLACE FUNCTION vacancy.parse_pci(document jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  demand jsonb;
  pool jsonb;
  demands jsonb := '[]';
BEGIN
  IF jsonb_typeof(document) <> 'array' THEN
    RAISE EXCEPTION 'pci must be a list of demands' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF jsonb_array_length(document) > 8 THEN
    RAISE EXCEPTION 'pci must be 8 demands at most' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  FOR demand IN SELECT * FROM jsonb_array_elements(document) LOOP
    IF jsonb_typeof(demand) <> 'object' THEN
      RAISE EXCEPTION 'a pci demand must be an object' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    demand := '{"count": 1, "same_cell": false, "tags": {}}' || demand;
    pool := demand - 'count' - 'same_cell';
    IF pool - ARRAY['vendor_id', 'product_id', 'tags', 'numa_node'] <> '{}'
      OR jsonb_typeof(pool->'tags') <> 'object'
      OR jsonb_typeof(demand->'same_cell') <> 'boolean'
      OR jsonb_typeof(coalesce(pool->'numa_node', '0')) <> 'number'
      OR NOT vacancy.are_amounts(jsonb_build_object('count', demand->'count'), 1)
      OR NOT coalesce(pool->>'vendor_id', pool->>'product_id', '0000') ~ '^[0-9a-fA-F]{4}$'
      OR NOT coalesce(pool->>'product_id', '0000') ~ '^[0-9a-fA-F]{4}$'
      OR NOT (pool ? 'vendor_id' OR pool ? 'product_id' OR pool->'tags' <> '{}') THEN
      RAISE EXCEPTION 'a pci demand has vendor_id and product_id (four hex digits), tags, numa_node, same_cell and count; '
        'one of the first three at least' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF pool->'tags' = '{}' THEN
      pool := pool - 'tags';
    END IF;
    pool := pool || jsonb_strip_nulls(jsonb_build_object(
      'vendor_id', lower(pool->>'vendor_id'), 'product_id', lower(pool->>'product_id')
    ));
    demands := demands || jsonb_build_object(
      'pool', pool,
      'same_cell', demand->'same_cell',
      'count', demand->'count',
      'name', concat_ws(' ',
        format('pci %s:%s', coalesce(pool->>'vendor_id', '*'), coalesce(pool->>'product_id', '*')),
        (SELECT string_agg(key || '=' || value, ' ' ORDER BY key) FROM jsonb_each_text(pool->'tags')),
        'node ' || (pool->>'numa_node')
      )
    );
  END LOOP;
  RETURN nullif(demands, '[]');
END
$$;

-- What of a request a claim must be true to: all but how to choose among hosts, and for how long.
CREATE OR REPLACE FUNCTION vacancy.asked_for(document jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE
RETURN jsonb_strip_nulls(document) - ARRAY[
  'strategy', 'weights', 'sample', 'max_age', 'claim_ttl', 'max_cpu_utilization', 'max_cpu_steal', 'max_cpu_pressure',
  'max_memory_pressure', 'max_io_pressure', 'min_memory_mb_available'
];

-- A request from JSON, with the defaults for what is missing or null.
-- Raises invalid_parameter_value for an unknown key and for a value that makes no sense.
-- Most requests are for amounts alone, and are read key by key: jsonb_populate_record() looks at all attributes in
-- each transaction anew.
CREATE OR REPLACE FUNCTION vacancy.parse_request(document jsonb) RETURNS vacancy.request
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  parsed vacancy.request;
  unknown jsonb;
BEGIN
  -- The defaults, in the order of the type's attributes.
  parsed := ROW(
    coalesce((document->>'vcpus')::bigint, 0), coalesce((document->>'memory_mb')::bigint, 0),
    coalesce((document->>'disk_gb')::bigint, 0), false, '{}', '[]', '{}', '{}', document->>'zone', '{}', '{}', NULL, NULL, NULL, NULL,
    NULL, 0, coalesce(document->>'strategy', 'spread'), (1, 1, 1, 1, 0.1)::vacancy.weights, coalesce((document->>'sample')::integer, 24),
    (document->>'max_age')::interval, coalesce((document->>'claim_ttl')::interval, '2 min'), NULL, NULL, NULL, NULL, NULL,
    vacancy.asked_for(document)
  )::vacancy.request;
  IF document - '{vcpus,memory_mb,disk_gb,zone,strategy,sample,max_age,claim_ttl}'::text[] = '{}'
    AND least(parsed.vcpus, parsed.memory_mb, parsed.disk_gb) >= 0
    AND greatest(parsed.vcpus, parsed.memory_mb, parsed.disk_gb) <= 2147483647
    AND parsed.strategy IN ('spread', 'pack', 'random') AND parsed.sample BETWEEN 1 AND 1000000
    AND parsed.claim_ttl > interval '0' AND parsed.claim_ttl <= interval '1000 years' AND (parsed.max_age <= interval '0') IS NOT TRUE THEN
    RETURN parsed;
  END IF;
  unknown := document - ARRAY[
    'vcpus', 'memory_mb', 'disk_gb', 'distinct_hosts', 'required', 'any_of', 'forbidden', 'aggregates', 'zone', 'include',
    'avoid', 'max_cpu_utilization', 'max_cpu_steal', 'max_cpu_pressure', 'max_memory_pressure', 'max_io_pressure',
    'min_memory_mb_available', 'strategy', 'weights', 'sample', 'max_age', 'claim_ttl', 'resources', 'numa', 'pci', 'near'
  ];
  IF unknown <> '{}' THEN
    RAISE EXCEPTION 'no such part of a request: %', (SELECT min(key) FROM jsonb_object_keys(unknown) AS key)
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF jsonb_typeof(document->'weights') = 'object' THEN
    unknown := (document->'weights') - ARRAY['vcpus', 'memory_mb', 'disk_gb', 'load', 'age'];
    IF unknown <> '{}' THEN
      RAISE EXCEPTION 'no such part of a request: weights.%', (SELECT min(key) FROM jsonb_object_keys(unknown) AS key)
        USING ERRCODE = 'invalid_parameter_value';
    END IF;
  END IF;
  parsed := jsonb_populate_record(parsed, jsonb_strip_nulls(document));
  IF least(parsed.vcpus, parsed.memory_mb, parsed.disk_gb, parsed.min_memory_mb_available) < 0 OR parsed.sample < 1
    OR parsed.claim_ttl <= interval '0' OR parsed.max_age <= interval '0' THEN
    RAISE EXCEPTION 'amounts must not be negative, sample, claim_ttl and max_age must be positive'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- What a claim can hold, and what keeps sums and products within their types.
  IF greatest(parsed.vcpus, parsed.memory_mb, parsed.disk_gb, parsed.min_memory_mb_available) > 2147483647
    OR parsed.sample > 1000000 OR parsed.claim_ttl > interval '1000 years'
    OR greatest(
      abs((parsed.weights).vcpus), abs((parsed.weights).memory_mb), abs((parsed.weights).disk_gb),
      abs((parsed.weights).load), abs((parsed.weights).age)
    ) > 1e6 THEN
    RAISE EXCEPTION 'amounts must be at most 2147483647, sample and weights 1000000, claim_ttl 1000 years'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF parsed.strategy NOT IN ('spread', 'pack', 'random') THEN
    RAISE EXCEPTION 'no such strategy: %; spread, pack or random', parsed.strategy
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  parsed.resources := nullif(parsed.resources, '{}');
  IF parsed.resources IS NOT NULL AND (
    parsed.resources ?| ARRAY['VCPU', 'MEMORY_MB', 'DISK_GB'] OR NOT vacancy.are_amounts(parsed.resources, 1)
  ) THEN
    RAISE EXCEPTION 'resources must be whole amounts above 0 by class; VCPU, MEMORY_MB and DISK_GB are vcpus, memory_mb, disk_gb'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF parsed.numa IS NOT NULL THEN
    parsed.numa := CASE WHEN jsonb_typeof(parsed.numa) = 'object' THEN '{"cpus": 0, "pages": {}}' || parsed.numa END;
    IF (
      parsed.numa - ARRAY['cpus', 'pages'] = '{}'
      AND vacancy.are_amounts(parsed.numa - 'pages', 0)
      AND (parsed.numa->'pages' = '{}' OR vacancy.are_amounts(parsed.numa->'pages', 1))
    ) IS NOT TRUE THEN
      RAISE EXCEPTION 'numa has cpus and pages: whole amounts, of pages by size in KiB' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    parsed.numa := nullif(parsed.numa, '{"cpus": 0, "pages": {}}') || jsonb_build_object(
      -- The cell must have what else the instance needs there: CPUs, and its memory.
      'vcpus', parsed.vcpus,
      'memory_mb', greatest(parsed.memory_mb - vacancy.memory_mb_in_pages(parsed.numa->'pages'), 0)
    );
  END IF;
  IF parsed.pci IS NOT NULL THEN
    parsed.pci := vacancy.parse_pci(parsed.pci);
  END IF;
  RETURN parsed;
END
$$;

-- parse_request(), and what takes a look at the session and the tables: sets the request's max_age for the rest of the
-- transaction, by which the view says who is stale, and looks up the storage pool that the host must be near.
CREATE OR REPLACE FUNCTION vacancy.prepare_request(document jsonb) RETURNS vacancy.request
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  prepared vacancy.request := vacancy.parse_request(document);
  setting text;
BEGIN
  IF prepared.max_age IS NOT NULL THEN
    setting := set_config('vacancy.max_age', prepared.max_age::text, true);
  END IF;
  IF prepared.near IS NOT NULL THEN
    SELECT i.aggregates INTO prepared.near_aggregates
    FROM vacancy.host_inventory AS i
    WHERE i.shares AND NOT i.retired AND prepared.near IN (i.name, i.host_id)
    ORDER BY i.observed_at DESC LIMIT 1;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'near: no such storage pool: %', prepared.near USING ERRCODE = 'invalid_parameter_value';
    END IF;
  END IF;
  RETURN prepared;
END
$$;

-- Whether a request has complex parts: resource classes, NUMA cells or PCI devices.
CREATE OR REPLACE FUNCTION vacancy.is_complex(request vacancy.request) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN (request).resources IS NOT NULL OR (request).numa IS NOT NULL OR (request).pci IS NOT NULL;

-- Whether a request says nothing of what the host is but its zone; its complex parts are looked at by themselves.
CREATE OR REPLACE FUNCTION vacancy.takes_any_host(request vacancy.request) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN (request).near IS NULL
  AND (request).required || (request).forbidden || (request).aggregates || (request).include || (request).avoid = '{}'
  AND (request).any_of = '[]'
  AND (request).zone IS DISTINCT FROM '';  -- that of hosts without one, which no index finds

-- Whether it limits no measured figure either, as most do. Such ones are ranked and checked by statements of their own
-- (best_of_sample(), claim_host()): what sets up a statement is the number of its expressions, and these have a quarter of host_fit()'s.
CREATE OR REPLACE FUNCTION vacancy.is_plain(request vacancy.request) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN num_nonnulls(
    (request).max_cpu_utilization, (request).max_cpu_steal, (request).max_cpu_pressure, (request).max_memory_pressure,
    (request).max_io_pressure
  ) = 0
  AND vacancy.takes_any_host(request);

-- The kinds of devices that a request's `pci` asks for: host_inventory.pci_kinds of a host that has them contains these.
CREATE OR REPLACE FUNCTION vacancy.requested_pci_kinds(pci jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE
RETURN coalesce(jsonb_path_query_array(pci, '$[*].pool'), '[]');

REVOKE ALL ON FUNCTION
  vacancy.are_amounts(jsonb, bigint), vacancy.parse_pci(jsonb), vacancy.asked_for(jsonb), vacancy.parse_request(jsonb),
  vacancy.prepare_request(jsonb), vacancy.is_complex(vacancy.request), vacancy.takes_any_host(vacancy.request), vacancy.is_plain(vacancy.request),
  vacancy.requested_pci_kinds(jsonb)
FROM PUBLIC;
