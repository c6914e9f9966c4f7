-- oldest-program: 1

-- A repricing: a month by another price book, as a document that holds ids of people and no name.
-- The role of the services adds one, and can neither change nor remove it.
create table headgate.repricing (
  name text primary key check (name <> ''),
  checksum bytea not null check (checksum = sha256(document)),
  document bytea not null
);

-- The months whose records were dropped, by their first day. A repricing of them is refused.
create table headgate.dropped_month (
  month date primary key,
  dropped_at timestamptz not null default now()
);

grant select, insert on headgate.repricing to headgate_application;
grant select on headgate.dropped_month to headgate_application;
