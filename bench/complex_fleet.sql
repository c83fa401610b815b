-- What the hosts of fleet.sql are beyond it, for the benchmark of complex claims: 100 traits each; 4 NUMA cells of 32 CPUs, 20
-- of them free, with 2 MiB and 1 GiB pages; 8 PCI pools: in each cell 32 functions of network cards and 4 GPUs.
UPDATE vacancy.host_inventory AS i SET
  traits = i.traits || ARRAY(
    SELECT 'CUSTOM_CAPABILITY_OF_HARDWARE_' || trait FROM generate_series(0, 149) AS trait
    WHERE (trait + hashtext(i.host_id)::bigint & 1023) % 150 < 97
  ),
  inventories = i.inventories
    || '{"CUSTOM_FPGA": {"total": 8, "reserved": 0, "min_unit": 1, "max_unit": 8, "step_size": 1, "allocation_ratio": 1.0}}',
  allocated = '{"CUSTOM_FPGA": 1}',
  numa_cells = (
    SELECT jsonb_agg(jsonb_build_object(
      'id', cell,
      'cpus', (SELECT jsonb_agg(cpu) FROM generate_series(cell * 32, cell * 32 + 31) AS cpu),
      'free_cpus', (SELECT jsonb_agg(cpu) FROM generate_series(cell * 32 + 12, cell * 32 + 31) AS cpu),
      'memory_mb', 65536,
      'pages', '[{"size_kb": 2048, "total": 16384, "free": 12288}, {"size_kb": 1048576, "total": 16, "free": 8}]'::jsonb
    ))
    FROM generate_series(0, 3) AS cell
  ),
  pci_pools = (
    SELECT jsonb_agg(pool.pool || jsonb_build_object('numa_node', cell))
    FROM generate_series(0, 3) AS cell
    CROSS JOIN (VALUES
      ('{"vendor_id": "8086", "product_id": "154c", "total": 32, "free": 24, "tags": {"physical_network": "tenant"}}'::jsonb),
      ('{"vendor_id": "10de", "product_id": "20b5", "total": 4, "free": 3, "tags": {}}')
    ) AS pool (pool)
  );
