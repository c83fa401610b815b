-- An operator takes a host out for now, and back: `vacancy disable` and `enable`.
-- What always holds: while disabled_at is set and the host is not retired, status is DISABLED and status_reason the operator's, and
-- told_status is what the host told last. The functions are the owner's alone.

-- UPDATE OF: a statement that does not say a status keeps all of it. The job's always says it, as the host told it.
CREATE OR REPLACE FUNCTION vacancy.keep_disabled() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  NEW.told_status := NEW.status;
  NEW.told_status_reason := NEW.status_reason;
  IF NEW.status IS NOT NULL THEN  -- a retired host has none
    NEW.status := 'DISABLED';
    NEW.status_reason := NEW.disabled_reason;
  END IF;
  RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER keep_disabled BEFORE UPDATE OF status ON vacancy.host_inventory
FOR EACH ROW WHEN (NEW.disabled_at IS NOT NULL) EXECUTE FUNCTION vacancy.keep_disabled();

-- Disables a host until enable_host(), or gives it another reason; false: there is no such host. Claims in flight stay.
CREATE OR REPLACE FUNCTION vacancy.disable_host(host text, why text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE vacancy.host_inventory AS i SET
    disabled_at = coalesce(i.disabled_at, statement_timestamp()),
    disabled_reason = why,
    status = CASE WHEN i.disabled_at IS NULL THEN i.status ELSE i.told_status END,
    status_reason = CASE WHEN i.disabled_at IS NULL THEN i.status_reason ELSE i.told_status_reason END
  WHERE i.host_id = host AND NOT i.retired;
  RETURN FOUND;
END
$$;

-- Takes the mark off: the host is again what it tells. False: no operator has it disabled here.
CREATE OR REPLACE FUNCTION vacancy.enable_host(host text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE vacancy.host_inventory AS i SET
    disabled_at = NULL,
    disabled_reason = NULL,
    status = i.told_status,
    status_reason = i.told_status_reason,
    told_status = NULL,
    told_status_reason = NULL
  WHERE i.host_id = host AND i.disabled_at IS NOT NULL;
  RETURN FOUND;
END
$$;

REVOKE ALL ON FUNCTION vacancy.keep_disabled(), vacancy.disable_host(text, text), vacancy.enable_host(text) FROM PUBLIC;
