-- How old a host's newest usage may be before the host is stale: scheduler.max_age, which each client sets for its
-- session (SET vacancy.max_age = '30 s'); without that 30 s.
CREATE OR REPLACE FUNCTION vacancy.max_age() RETURNS interval
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce(nullif(current_setting('vacancy.max_age', true), '')::interval, interval '30 s');
