-- Replicas are told at once of what they hold in memory. For each row: nothing is told of a statement that changed
-- nothing, and a transaction tells each topic once. Not on what ticks write: a NOTIFY takes a lock of the whole
-- server when its transaction ends.
CREATE FUNCTION tell_replicas() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('rampart', TG_ARGV[0]);
    RETURN NULL;
END
$$;

CREATE TRIGGER told AFTER INSERT OR UPDATE OF reset_at ON kills
    FOR EACH ROW EXECUTE FUNCTION tell_replicas('kills');
CREATE TRIGGER told AFTER INSERT OR UPDATE OR DELETE ON flag_configs
    FOR EACH ROW EXECUTE FUNCTION tell_replicas('flags');
CREATE TRIGGER told AFTER INSERT OR UPDATE OR DELETE ON tokens
    FOR EACH ROW EXECUTE FUNCTION tell_replicas('tokens');
CREATE TRIGGER told AFTER INSERT OR UPDATE OR DELETE ON sdk_keys
    FOR EACH ROW EXECUTE FUNCTION tell_replicas('sdk_keys');
CREATE TRIGGER told AFTER INSERT ON manifest_revisions
    FOR EACH ROW WHEN (NEW.kind = 'RolloutPlan') EXECUTE FUNCTION tell_replicas('plans');
