-- Which figures of a host's newest event are not certain.
ALTER TABLE vacancy.host ADD COLUMN uncertain text[];
COMMENT ON COLUMN vacancy.host.uncertain IS
'Fields of the newest event that the node could not tell, or that are what they were earlier. Null: none.';
-- Which disk a host has, so that one that several hosts have is found.
ALTER TABLE vacancy.host_inventory ADD COLUMN disk_id text;
COMMENT ON COLUMN vacancy.host_inventory.disk_id IS
'What the disk of instances is: the same on all hosts that see the same file system, and on no others. Null: not known.';
