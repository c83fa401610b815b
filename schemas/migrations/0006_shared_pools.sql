-- Storage pools that hosts take their disk from: which host belongs to which, and what counts against a pool.

ALTER TABLE vacancy.host_inventory ADD COLUMN disk_pool text;
COMMENT ON COLUMN vacancy.host_inventory.disk_pool IS 'Name or id of the storage pool that the host''s disk comes from. Null: it has a disk of its own.';

-- The hosts of a pool.
CREATE INDEX host_inventory_disk_pool ON vacancy.host_inventory (disk_pool) WHERE disk_pool IS NOT NULL AND NOT retired;
-- A pool may be enabled, and is no host even so.
DROP INDEX vacancy.host_inventory_sample;
CREATE INDEX host_inventory_hosts ON vacancy.host_inventory (sample_key) INCLUDE (host_id)
WHERE NOT retired AND status = 'ENABLED' AND NOT shares;

ALTER TABLE vacancy.claim ADD COLUMN pool_id text, ADD COLUMN settled_xid xid8;
COMMENT ON COLUMN vacancy.claim.pool_id IS 'Storage pool whose pool_claimed counts disk_gb. Null: the host''s own disk, or counted there no more.';
COMMENT ON COLUMN vacancy.claim.settled_xid IS 'The transaction that settled it, where it draws from a storage pool.';
-- What is due to be written off: what has expired, and what the hosts' rows show.
CREATE INDEX claim_pool_expiry ON vacancy.claim (pool_id, expires_at) WHERE pool_id IS NOT NULL AND settled_xid IS NULL;
CREATE INDEX claim_pool_settled ON vacancy.claim (pool_id, settled_xid) WHERE pool_id IS NOT NULL AND settled_xid IS NOT NULL;
-- What has expired and may go: not what still counts against a pool.
DROP INDEX vacancy.claim_expiry;
CREATE INDEX claim_expired ON vacancy.claim (expires_at) WHERE pool_id IS NULL;

-- What claims hold of a storage pool. Grain: one row a pool and slot. Written by claims alone, each of which holds the lock of
-- the slot, so that nobody waits for a row. Over all slots claimed_gb is the sum of disk_gb of all claims with this pool_id.
CREATE TABLE vacancy.pool_claimed (
  claimed_gb bigint NOT NULL,
  slot integer NOT NULL,
  pool_id text NOT NULL,
  PRIMARY KEY (pool_id, slot)
) WITH (fillfactor = 10, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);

COMMENT ON TABLE vacancy.pool_claimed IS 'What claims hold of each storage pool. Written by claim(), note_claim() and the sweep alone.';
COMMENT ON COLUMN vacancy.pool_claimed.claimed_gb IS 'Summed over the slots: GiB of all claims with this pool_id, those that are due to be written off included.';
COMMENT ON COLUMN vacancy.pool_claimed.slot IS '0: of who has the pool alone; else one of those who draw at the same time.';

-- What the hosts of a storage pool hold of it. Grain: one row a pool. Written by the trigger sum_pool alone, when the pool's
-- usage row is written.
CREATE TABLE vacancy.pool_allocated (
  allocated_gb bigint NOT NULL,
  as_of pg_snapshot NOT NULL,
  summed_at timestamptz NOT NULL,
  pool_id text PRIMARY KEY
) WITH (fillfactor = 10, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);

COMMENT ON TABLE vacancy.pool_allocated IS 'What the rows of each storage pool''s hosts say that their instances hold of it.';
COMMENT ON COLUMN vacancy.pool_allocated.as_of IS 'Which transactions the sum has seen: a claim that one of them settled is in it.';

-- They have one column or parameter more: the storage pool, and those whose lock is held.
DROP FUNCTION IF EXISTS
  vacancy.usage_fit(vacancy.request), vacancy.host_fit(vacancy.request), vacancy.claim_host(vacancy.request, uuid, boolean);

GRANT SELECT ON vacancy.pool_claimed, vacancy.pool_allocated TO vacancy_reader;
