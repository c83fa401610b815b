-- What every host is: names, status, resource classes, traits, topology.
-- Grain: one row a host, rewritten by the job alone on start, on change and every few minutes. Key: host_id.
-- A retired host keeps a row, its tombstone, in which everything but host_id, observed_at and retired is null.
CREATE TABLE vacancy.host_inventory (
  observed_at timestamptz NOT NULL,
  -- A column of its own and not an expression over observed_at, since an index on that would end HOT updates.
  retired_at timestamptz GENERATED ALWAYS AS (CASE WHEN retired THEN observed_at END) STORED,
  reporting_interval_ms bigint,
  retired boolean NOT NULL DEFAULT false,
  host_id text PRIMARY KEY,
  boot_id text,
  name text,
  zone text,
  status text CHECK (status IN ('ENABLED', 'DISABLED')),
  status_reason text,
  agent_version text,
  inventories jsonb,
  traits text[],
  aggregates text[],
  numa_cells jsonb,
  pci_pools jsonb,
  CONSTRAINT present_unless_retired CHECK (retired OR (name IS NOT NULL AND status IS NOT NULL))
) WITH (
  fillfactor = 70
);

-- Finds the tombstones that are due, and holds nothing else.
CREATE INDEX host_inventory_tombstones ON vacancy.host_inventory (retired_at) WHERE retired_at IS NOT NULL;

COMMENT ON TABLE vacancy.host_inventory IS 'One row a host: what it is. Written by the job alone.';
COMMENT ON COLUMN vacancy.host_inventory.observed_at IS 'Append time of the newest inventory event; never goes back.';
COMMENT ON COLUMN vacancy.host_inventory.retired IS 'True: a tombstone. It keeps late usage out and goes after 7 days.';
COMMENT ON COLUMN vacancy.host_inventory.status_reason IS 'Why the host is disabled, in the operator''s words.';
COMMENT ON COLUMN vacancy.host_inventory.inventories IS 'By resource class: total, reserved, min_unit, max_unit, step_size, allocation_ratio.';
COMMENT ON COLUMN vacancy.host_inventory.reporting_interval_ms IS 'ms between two usage events, as the agent is configured.';
