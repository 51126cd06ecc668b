-- The log only grows. A row that went missing would stop the relay, and one that changed would be another event in Redis,
-- in exports and with whoever has it already. How to erase what an event says: docs/sql.md.
CREATE FUNCTION eventbroker.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'EB004',
        MESSAGE = format('%s refused: %I.%I only grows', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME),
        HINT = 'Nothing was changed. How to erase what an event says is in docs/sql.md.';
END
$$;

CREATE TRIGGER append_only
BEFORE UPDATE OR DELETE OR TRUNCATE ON eventbroker.events
FOR EACH STATEMENT EXECUTE FUNCTION eventbroker.refuse_change();
