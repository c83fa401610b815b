-- What claims look at, with fewer statements: a sample of hosts names their storage pools, too.

-- What the storage pools of some hosts have, as pools_of() gives it. The first three arrays have an element a host, the others one a
-- pool. disk_pools: what the host names as its pool; null: it has a disk of its own. elsewhere: whether its pool is in no
-- aggregate of the host; null: of none. outs: what rules the pool out; null: nothing.
CREATE TYPE vacancy.pools AS (
  hosts text[],
  disk_pools text[],
  elsewhere boolean[],
  names text[],
  ids text[],
  outs text[],
  capacities bigint[],
  free bigint[],
  available bigint[]
);

-- A sample names the pools of its hosts without reading the hosts' rows.
DROP INDEX vacancy.host_inventory_hosts;
CREATE INDEX host_inventory_sampled ON vacancy.host_inventory (sample_key) INCLUDE (host_id, disk_pool)
WHERE NOT retired AND status = 'ENABLED' AND NOT shares;

-- Their parameters or results are others.
DROP FUNCTION IF EXISTS
  vacancy.typical_load(), vacancy.pool_states(vacancy.request, text[]), vacancy.usage_fit(vacancy.request, text[]),
  vacancy.host_fit(vacancy.request, text[]), vacancy.random_hosts(integer), vacancy.hosts_near(text[], integer),
  vacancy.hosts_that_offer(vacancy.request, integer), vacancy.best_of_sample(vacancy.request, integer, boolean, integer),
  vacancy.best_of_all(vacancy.request), vacancy.lock_pool(text, bigint, boolean),
  vacancy.claim_host(vacancy.request, uuid, integer, boolean, jsonb);
