-- Brings a database that the fourteen migrations before 0001_generated_columns made to where 0002_tables leaves a new one.
-- Functions and views are applied afterwards in any case; what stands here is what CREATE OR REPLACE cannot do.
-- replaces 0001_host 6ccbafbcfdc54edd615bc848f7b2a958c6c324f0e6b64bdb8fdae5e232603d49
-- replaces 0002_host_inventory 4c643ffe3f33e05ca03b6e0ccc00eb192fb6d6d3ce500cd01c6b45cd2a6a3b99
-- replaces 0003_never_back_in_time 39dd42ce60d0eb46254b3487618f53662184f773456f249e2e8f5bdabe20d5e8
-- replaces 0004_retirement c4d300075370409bfb901c663855af2066ebf59439da4e2b6eb98de16f6a3fe1
-- replaces 0005_schedulable_host fb76009e689c2ecdf7617b7732d8f655c8590b7ed0a93ef9a416d3238e4c3f7f
-- replaces 0006_roles b991e62f41fdeda80a6021ce34b9487a42072adbdeea36fc680b3e7ecbad8c32
-- replaces 0007_claim bd0e6b2fd6ddcd4700eda11f07de5ee7feff5d8a79a1d270e8306a4a7e842936
-- replaces 0008_claim_functions d038bb8174bb13ab3fa95d1ddbf4f13abccf8042bb48a899bc9fe9b6e7467975
-- replaces 0009_freshness 04d1f87849953da9fee44e402771e7218b550ccb4d2e7fecb1e6f725f6caad61
-- replaces 0010_ranking 0cbc755df7b22536bd9a1aed7222d595bacf831ee17a5e823d1c5b2e037e2dfc
-- replaces 0011_newest_by_the_sink 95fe7fe57c62faf8b21ccfc72a8acdce8994feef13ab1dd1889c6e32a4097ae0
-- replaces 0012_complex_resources 42ac829eb63d0e4a21ddbdebb23894f723f289e7053ad92d67332f8d9247aa0a
-- replaces 0013_source b5b7f60bb5c9f501e6ce18380fd619e2b8b7c80f08947c73f566ce8c3fc81f5d
-- replaces 0014_storage_and_drift a7048d6e68a809a0928f898c40b77c83008a596715488cefd1253184195b5e44

-- Views first: they call the functions below.
DROP VIEW vacancy.pci_pool, vacancy.numa_cell, vacancy.resource_class;

-- Functions that have another name now, or parameters of other names.
DROP FUNCTION
  vacancy.taken(text),
  vacancy.pci_free(jsonb, jsonb),
  vacancy.cells_free(jsonb, jsonb),
  vacancy.class_free(text, jsonb, jsonb, jsonb),
  vacancy.complex_missing(jsonb, jsonb, jsonb, jsonb, jsonb, jsonb, jsonb, jsonb),
  vacancy.complex_room(text, jsonb, jsonb, jsonb),
  vacancy.complex_judged(text, jsonb, jsonb, jsonb),
  vacancy.are_amounts(jsonb, bigint),
  vacancy.take_request(jsonb),
  vacancy.is_complex(vacancy.request),
  vacancy.kinds(jsonb),
  vacancy.room(vacancy.request),
  vacancy.judged(vacancy.request),
  vacancy.random_hosts(integer),
  vacancy.hosts_that_offer(vacancy.request, integer),
  vacancy.hosts_near(text[], integer),
  vacancy.best_of_sample(vacancy.request, integer, boolean, integer),
  vacancy.look_at_all(vacancy.request),
  vacancy.leave_behind(uuid[]),
  vacancy.claim_host(vacancy.request, uuid, boolean);

DROP TRIGGER bury_tombstones ON vacancy.host_inventory;
DROP FUNCTION vacancy.bury_tombstones();

-- The function of the generated column numa_free has changed: its values are computed again.
UPDATE vacancy.host_inventory SET host_id = host_id WHERE numa_cells <> '[]';

COMMENT ON TABLE vacancy.claim IS 'What schedulers picked and hosts do not show yet. Written by claim(), note_claim() and release() alone.';
COMMENT ON COLUMN vacancy.host_inventory.shares IS 'True: no host but a storage pool, which the hosts of its aggregates share.';

ALTER TABLE vacancy.host ADD COLUMN anomalies integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN vacancy.host.anomalies IS 'Bits: 1 several nodes report under this id, 2 the node''s clock went back, 4 a fraction was above 1.';

GRANT SELECT ON vacancy.schema_source TO vacancy_reader;
