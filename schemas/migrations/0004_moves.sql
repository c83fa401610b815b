-- What a claim was made for, so that a claim for something else can be told from the same one again; and claims that moved.

ALTER TABLE vacancy.claim ADD COLUMN asked jsonb, ADD COLUMN resized boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN vacancy.claim.asked IS 'The request, without what only says how to choose. Null: noted, or made by an earlier release.';
COMMENT ON COLUMN vacancy.claim.resized IS 'True: its host showed the consumer, with another size, when it was made; only a row that lists it anew settles it.';

ALTER TYPE vacancy.request ADD ATTRIBUTE asked jsonb;

-- It has one parameter more: whether claims for something else move.
DROP FUNCTION IF EXISTS vacancy.claim(uuid[], jsonb);
