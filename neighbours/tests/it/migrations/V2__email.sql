ALTER TABLE users ADD COLUMN email text;
INSERT INTO users VALUES (1, 'Ada', 'ada@example.org'), (2, 'Grace', NULL);
