-- Which figures of a host's newest event are not certain.
ALTER TABLE vacancy.host ADD COLUMN uncertain text[];
COMMENT ON COLUMN vacancy.host.uncertain IS
'Fields of the newest event that the node could not tell, or that are what they were earlier. Null: none.';
