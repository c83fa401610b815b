-- Hosts that a request names are found by index.
CREATE INDEX host_inventory_names ON vacancy.host_inventory (name) WHERE NOT retired;
