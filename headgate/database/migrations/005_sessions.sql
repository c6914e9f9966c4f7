-- oldest-program: 1

-- Sessions of people in a browser, by the digest of their cookie. The roles are those of the login.
-- `entry_digest` is that of the issuer's entry in the policy, or of the operator token: a session
-- ends when that changes. `issuer` is empty for the operator token.
create table headgate.browser_session (
  digest bytea primary key check (octet_length(digest) = 32),
  person_id uuid not null references headgate.person,
  issuer text not null,
  entry_digest bytea not null check (octet_length(entry_digest) = 32),
  roles jsonb not null,
  token_id text not null,
  token_issued_at timestamptz not null,
  created_at timestamptz not null,
  seen_at timestamptz not null
);
create index browser_session_seen on headgate.browser_session (seen_at);

grant select, insert, update (seen_at), delete on headgate.browser_session
  to headgate_application;
