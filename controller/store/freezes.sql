-- Every statement about freezes of the organisation, by name.

-- name: add_freeze
-- A freeze with its audit entry; no number when one of that name is not over yet.
SELECT add_freeze($1, $2, $3, $4, $5, $6, $7)

-- name: lift_freeze
-- The freeze of that name that is not over at $2 ends, with the audit entry that says so.
WITH standing AS (
    SELECT number FROM freezes WHERE name = $1 AND lifted_at IS NULL AND ends_at > $2
    FOR UPDATE
), lifted AS (
    UPDATE freezes SET lifted_at = $2, document = $3 FROM standing WHERE freezes.number = standing.number
    RETURNING freezes.number
)
SELECT append_audit($4, $5, NULL, NULL) FROM lifted

-- name: standing
-- Those that hold or are to come. A clock that runs behind may take one for standing that this server's does not.
SELECT number, name, starts_at, ends_at, document FROM freezes
WHERE lifted_at IS NULL AND ends_at > clock_timestamp() - interval '1 day'
ORDER BY number

-- name: latest
-- The newest ones, whatever became of them.
SELECT number, name, starts_at, ends_at, document FROM freezes ORDER BY number DESC LIMIT $1
