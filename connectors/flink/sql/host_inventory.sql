-- Table vacancy.host_inventory. Arrays and JSON go as text, which the server casts.
CREATE TEMPORARY TABLE host_inventory (
  host_id STRING NOT NULL,
  observed_at TIMESTAMP_LTZ(3) NOT NULL,
  retired BOOLEAN NOT NULL,
  boot_id STRING,
  name STRING,
  zone STRING,
  status STRING,
  status_reason STRING,
  inventories STRING,
  traits STRING,
  aggregates STRING,
  numa_cells STRING,
  pci_pools STRING,
  reporting_interval_ms BIGINT,
  agent_version STRING,
  allocated STRING,
  source STRING,
  disk_id STRING,
  disk_pool STRING,
  PRIMARY KEY (host_id) NOT ENFORCED
) WITH ($options)
