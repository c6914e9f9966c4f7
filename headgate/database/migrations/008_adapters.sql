-- oldest-program: 1

-- An adapter of a tenant, under the name that clients use. `weights` are the shares of its versions
-- in hundredths, by number; they add up to 100. A removed adapter keeps its row and its name.
create table headgate.adapter (
  name text primary key check (name <> ''),
  tenant text not null check (tenant <> ''),
  base text not null check (base <> ''),
  shared_with text[] not null default '{}',
  weights jsonb not null,
  copies integer not null check (copies between 1 and 64),
  removed_at timestamptz,
  generation bigint not null
);
create index adapter_generation on headgate.adapter (generation);
create index adapter_tenant on headgate.adapter (tenant, name);

-- A version is never changed: other weights are another version. `withdrawn_at` ends it.
create table headgate.adapter_version (
  adapter text not null references headgate.adapter,
  number integer not null check (number > 0),
  source text not null check (source <> ''),
  registered_at timestamptz not null,
  withdrawn_at timestamptz,
  primary key (adapter, number)
);

grant select, insert, update (shared_with, weights, copies, removed_at, generation)
  on headgate.adapter to headgate_application;
grant select, insert, update (withdrawn_at) on headgate.adapter_version to headgate_application;
