-- How old a host's newest usage may be before the host is stale: scheduler.max_age, which each client sets for its
-- session (SET vacancy.max_age = '30 s'); without that 30 s.
CREATE OR REPLACE FUNCTION vacancy.max_age() RETURNS interval
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce(nullif(current_setting('vacancy.max_age', true), '')::interval, interval '30 s');

-- How far a broker's clock may be ahead of this server's. A row that is further ahead is from the future: its age is not
-- known, and its host is out. The job's sink says the same of rows that it writes (Upsert.AHEAD_MS).
CREATE OR REPLACE FUNCTION vacancy.max_clock_ahead() RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '5 s';
