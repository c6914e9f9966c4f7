-- oldest-program: 1

-- Every change of what replicas follow takes the next number here, last in its transaction order:
-- this one row makes the numbers commit in order, which a sequence would not.
create table headgate.generation (
  only_row boolean primary key default true check (only_row),
  value bigint not null check (value >= 0)
);
insert into headgate.generation (value) values (0);

-- Names of people. Everything else holds only the id, so that one update takes a name away.
create table headgate.person (
  id uuid primary key default gen_random_uuid(),
  name text not null unique check (name <> '')
);

create table headgate.api_key (
  id text primary key check (id ~ '^~[0-9a-f]{16}$'),
  tenant text not null check (tenant <> ''),
  person_id uuid not null references headgate.person,
  models text[],
  limits jsonb not null default '[]',
  labels jsonb not null default '{}',
  created_at timestamptz not null,
  expires_at timestamptz,
  revoked_at timestamptz,
  last_used_at timestamptz,
  generation bigint not null
) with (fillfactor = 80);
create index api_key_generation on headgate.api_key (generation);
create index api_key_tenant on headgate.api_key (tenant, id);

create table headgate.key_secret (
  digest bytea primary key check (octet_length(digest) = 32),
  key_id text not null references headgate.api_key,
  created_at timestamptz not null,
  expires_at timestamptz
);
create index key_secret_key on headgate.key_secret (key_id);

-- The change log. `number` is the generation of the change.
create table headgate.change (
  number bigint primary key,
  at timestamptz not null,
  actor_id uuid not null references headgate.person,
  origin text not null,
  action text not null,
  object text not null,
  before jsonb,
  after jsonb,
  hash bytea not null check (octet_length(hash) = 32)
);

grant usage on schema headgate to headgate_application;
grant select on headgate.migration to headgate_application;
grant select, update (value) on headgate.generation to headgate_application;
grant select, insert, update (name) on headgate.person to headgate_application;
grant select, insert, update (expires_at, revoked_at, last_used_at, generation)
  on headgate.api_key to headgate_application;
grant select, insert, update (expires_at) on headgate.key_secret to headgate_application;
grant select, insert on headgate.change to headgate_application;
