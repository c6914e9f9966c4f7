-- oldest-program: 1

-- The places of versions on pods. The leader of the reconcilers writes them: what it has decided and
-- what it has seen, so they have no row in the change log. `version` is the name in vLLM. Requests
-- go to a place that is open. An `error` is what went wrong last; a permanent one is not tried again.
create table headgate.adapter_place (
  pod text not null check (pod <> ''),
  version text not null check (version <> ''),
  step text not null check (step in ('waiting', 'copying', 'loading', 'loaded', 'failed')),
  is_open boolean not null default false,
  error text not null default '',
  is_permanent boolean not null default false,
  changed_at timestamptz not null,
  primary key (pod, version)
);
create index adapter_place_version on headgate.adapter_place (version);

-- Counts the changes of places. Replicas read the places again when it moves.
create table headgate.adapter_place_round (
  only_row boolean primary key default true check (only_row),
  value bigint not null check (value >= 0)
);
insert into headgate.adapter_place_round (value) values (0);

-- The requests of each version that a replica has let in and has seen end. A request may end at
-- another replica than the one that let it in, so only the sums say how many are in flight.
create table headgate.adapter_use (
  version text not null,
  replica text not null,
  began bigint not null default 0,
  ended bigint not null default 0,
  used_at timestamptz not null,
  primary key (version, replica)
) with (fillfactor = 70);

grant select, insert, update, delete on headgate.adapter_place to headgate_application;
grant select, update (value) on headgate.adapter_place_round to headgate_application;
grant select, insert, update, delete on headgate.adapter_use to headgate_application;
