-- name: WriteReport :exec
UPDATE reports SET body = $1 WHERE name = 'nightly';
