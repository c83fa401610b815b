-- What each host is. Grain: an inventory event. Key of the sink: host_id; it keeps the newest by its place in the topic.
INSERT INTO host_inventory
SELECT
  event.host_id,
  append_time AS observed_at,
  event.retired,
  event.boot_id,
  event.name,
  event.zone,
  event.status,
  event.status_reason,
  event.inventories,
  event.traits,
  event.aggregates,
  event.numa_cells,
  event.pci_pools,
  event.reporting_interval_ms,
  event.agent_version,
  event.allocated,
  event.source,
  event.disk_id,
  event.disk_pool,
  `partition` AS topic_partition,
  `offset` AS topic_offset
FROM inventory_decoded
WHERE event.reason IS NULL
