-- Random samples of hosts that are not disabled: what a claim looks at instead of the whole fleet. hosts: their ids;
-- disk_pools: of each, in the same order, the storage pool that it names, null where it has a disk of its own.

-- So many random hosts, fewer only where there are not as many.
-- They are neighbours in the random order (host_inventory.sample_key) from a random place on; from its end it goes on at
-- its beginning. Cost: so many entries of an index, whatever the number of hosts.
CREATE OR REPLACE FUNCTION vacancy.random_hosts(sample_size integer, OUT hosts text[], OUT disk_pools text[])
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  place double precision := random();
BEGIN
  SELECT array_agg(s.host_id), array_agg(s.disk_pool) INTO hosts, disk_pools
  FROM (
    SELECT i.host_id, i.disk_pool FROM vacancy.host_inventory AS i
    WHERE NOT i.retired AND i.status = 'ENABLED' AND NOT i.shares AND i.sample_key >= place ORDER BY i.sample_key LIMIT sample_size
  ) AS s;
  IF cardinality(hosts) = sample_size THEN
    RETURN;
  END IF;
  SELECT hosts || array_agg(s.host_id), disk_pools || array_agg(s.disk_pool) INTO hosts, disk_pools
  FROM (
    SELECT i.host_id, i.disk_pool FROM vacancy.host_inventory AS i
    WHERE NOT i.retired AND i.status = 'ENABLED' AND NOT i.shares AND i.sample_key < place
    ORDER BY i.sample_key LIMIT sample_size - coalesce(cardinality(hosts), 0)
  ) AS s;
END
$$;

-- The same of an availability zone: however few of all hosts are in it, they are found at once.
CREATE OR REPLACE FUNCTION vacancy.hosts_in_zone(of_zone text, sample_size integer, OUT hosts text[], OUT disk_pools text[])
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  place double precision := random();
BEGIN
  SELECT array_agg(s.host_id), array_agg(s.disk_pool) INTO hosts, disk_pools
  FROM (
    (
      SELECT i.host_id, i.disk_pool FROM vacancy.host_inventory AS i
      WHERE NOT i.retired AND i.status = 'ENABLED' AND NOT i.shares AND i.zone = of_zone AND i.sample_key >= place
      ORDER BY i.zone, i.sample_key LIMIT sample_size
    )
    UNION ALL
    (
      SELECT i.host_id, i.disk_pool FROM vacancy.host_inventory AS i
      WHERE NOT i.retired AND i.status = 'ENABLED' AND NOT i.shares AND i.zone = of_zone AND i.sample_key < place
      ORDER BY i.zone, i.sample_key LIMIT sample_size
    )
    LIMIT sample_size
  ) AS s;
END
$$;

-- So many random hosts that have the kinds of devices and the resource classes of a request, free or not, in its zone and
-- aggregates; null where it names no devices and classes. By index: the rare are found as quickly as the common.
-- Each way asks the index for what the request names alone: every host contains nothing, so all of the index would be read for that.
CREATE OR REPLACE FUNCTION vacancy.hosts_that_offer(
  request vacancy.request, sample_size integer, OUT hosts text[], OUT disk_pools text[]
)
LANGUAGE plpgsql VOLATILE SET enable_bitmapscan = on AS $$
DECLARE
  requested_kinds jsonb := vacancy.requested_pci_kinds(request.pci);
  requested_classes text[] := coalesce(vacancy.resource_classes(request.resources), '{}');
BEGIN
  IF request.pci IS NULL AND request.resources IS NULL THEN
    RETURN;
  END IF;
  SELECT coalesce(array_agg(s.host_id), '{}'), array_agg(s.disk_pool) INTO hosts, disk_pools
  FROM (
    SELECT offers.host_id, offers.disk_pool
    FROM (
      SELECT i.host_id, i.disk_pool, i.zone, i.aggregates FROM vacancy.host_inventory AS i
      WHERE request.pci IS NOT NULL AND NOT i.retired AND i.status = 'ENABLED' AND NOT i.shares
        AND i.pci_kinds @> requested_kinds
        AND (requested_classes = '{}' OR i.resource_classes @> requested_classes)
      UNION ALL
      SELECT i.host_id, i.disk_pool, i.zone, i.aggregates FROM vacancy.host_inventory AS i
      WHERE request.pci IS NULL AND NOT i.retired AND i.status = 'ENABLED' AND NOT i.shares
        AND i.resource_classes @> requested_classes
    ) AS offers
    WHERE (request.zone IS NULL OR request.zone = coalesce(offers.zone, ''))
      AND (request.aggregates = '{}' OR offers.aggregates && request.aggregates)
    ORDER BY random() LIMIT sample_size
  ) AS s;
END
$$;

-- So many random hosts in any of some aggregates, a storage pool's or those that a request names. By index.
CREATE OR REPLACE FUNCTION vacancy.hosts_near(
  any_of_aggregates text[], sample_size integer, OUT hosts text[], OUT disk_pools text[]
)
LANGUAGE plpgsql VOLATILE SET enable_bitmapscan = on AS $$
BEGIN
  SELECT coalesce(array_agg(s.host_id), '{}'), array_agg(s.disk_pool) INTO hosts, disk_pools
  FROM (
    SELECT i.host_id, i.disk_pool FROM vacancy.host_inventory AS i
    WHERE NOT i.retired AND i.status = 'ENABLED' AND NOT i.shares AND i.aggregates && any_of_aggregates
    ORDER BY random() LIMIT sample_size
  ) AS s;
END
$$;

-- The hosts of such ids or names. By index.
CREATE OR REPLACE FUNCTION vacancy.hosts_named(ids_or_names text[], OUT hosts text[], OUT disk_pools text[])
LANGUAGE plpgsql STABLE AS $$
BEGIN
  SELECT coalesce(array_agg(s.host_id), '{}'), array_agg(s.disk_pool) INTO hosts, disk_pools
  FROM (
    SELECT i.host_id, i.disk_pool FROM vacancy.host_inventory AS i WHERE i.host_id = ANY (ids_or_names) AND NOT i.retired
    UNION
    SELECT i.host_id, i.disk_pool FROM vacancy.host_inventory AS i WHERE i.name = ANY (ids_or_names) AND NOT i.retired
  ) AS s;
END
$$;

REVOKE ALL ON FUNCTION
  vacancy.random_hosts(integer), vacancy.hosts_in_zone(text, integer), vacancy.hosts_that_offer(vacancy.request, integer), vacancy.hosts_near(text[], integer),
  vacancy.hosts_named(text[])
FROM PUBLIC;
