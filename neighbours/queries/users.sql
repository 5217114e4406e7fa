--! users_with_email
SELECT id, name, email FROM users WHERE email IS NOT NULL AND id >= :least ORDER BY id;
