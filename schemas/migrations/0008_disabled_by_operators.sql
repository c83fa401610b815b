-- Hosts that an operator takes out for now. The marks are in the host's row, in columns that the job does not write, so that its next
-- events leave them.

ALTER TABLE vacancy.host_inventory
  ADD COLUMN disabled_at timestamptz,
  ADD COLUMN disabled_reason text,
  ADD COLUMN told_status text CHECK (told_status IN ('ENABLED', 'DISABLED')),
  ADD COLUMN told_status_reason text,
  ADD CONSTRAINT disabled_with_reason CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL));

COMMENT ON COLUMN vacancy.host_inventory.disabled_at IS 'Since when an operator has it disabled here, whatever it says itself. Null: none has.';
COMMENT ON COLUMN vacancy.host_inventory.disabled_reason IS 'Why, in the operator''s words.';
COMMENT ON COLUMN vacancy.host_inventory.told_status IS 'While disabled_at is set: the status that the host told last; it has it again when it is enabled.';
COMMENT ON COLUMN vacancy.host_inventory.told_status_reason IS 'The same of status_reason.';
