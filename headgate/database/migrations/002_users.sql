-- oldest-program: 1

-- The name for people to read, as a token gave it last. It decides nothing.
alter table headgate.person add column display_name text not null default '';

-- A row stays when a user is unblocked, so that replicas see the change by its generation.
create table headgate.blocked_user (
  tenant text not null check (tenant <> ''),
  person_id uuid not null references headgate.person,
  blocked_at timestamptz,
  generation bigint not null,
  primary key (tenant, person_id)
);
create index blocked_user_generation on headgate.blocked_user (generation);

-- Revoked tokens: all of a person, those of a person from before a moment, or the one of an id.
-- `id` is the generation in which it was made.
create table headgate.revocation (
  id bigint primary key,
  issuer text not null check (issuer <> ''),
  person_id uuid references headgate.person,
  token_id text check (token_id <> ''),
  issued_before timestamptz,
  created_at timestamptz not null,
  lifted_at timestamptz,
  generation bigint not null,
  check ((person_id is null) <> (token_id is null)),
  check (issued_before is null or person_id is not null)
);
create index revocation_generation on headgate.revocation (generation);

grant update (display_name) on headgate.person to headgate_application;
grant select, insert, update (blocked_at, generation)
  on headgate.blocked_user to headgate_application;
grant select, insert, update (lifted_at, generation) on headgate.revocation to headgate_application;
