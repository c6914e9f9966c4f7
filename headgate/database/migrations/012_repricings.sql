-- oldest-program: 1

-- A repricing: a month by another price book, as a document that holds ids of people and no name.
-- The role of the services adds one, and can neither change nor remove it.
create table headgate.repricing (
  name text primary key check (name <> ''),
  checksum bytea not null check (checksum = sha256(document)),
  document bytea not null
);

-- The differences of a repricing that were ordered as corrections of its month, which is closed. The
-- next open month has them as lines. The cost is in nanos; below 0 it is given back.
create table headgate.repricing_correction (
  repricing text not null references headgate.repricing,
  month text not null,
  tenant text not null,
  person text not null,
  model text not null,
  cost_nanos bigint not null check (cost_nanos <> 0),
  primary key (repricing, tenant, person, model)
);
create index repricing_correction_month on headgate.repricing_correction (month, tenant);

-- The months whose records were dropped, by their first day. A repricing of them is refused.
create table headgate.dropped_month (
  month date primary key,
  dropped_at timestamptz not null default now()
);

grant select, insert on headgate.repricing, headgate.repricing_correction
  to headgate_application;
grant select on headgate.dropped_month to headgate_application;
