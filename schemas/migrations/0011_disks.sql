-- The disk of one host is found by index, and with it whether others promise the same one.
CREATE INDEX host_inventory_disk_id ON vacancy.host_inventory (disk_id) WHERE disk_id IS NOT NULL AND NOT retired;
