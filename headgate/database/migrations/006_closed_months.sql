-- oldest-program: 1

-- A closed month: the document of its report, which holds ids of people and no name. The role of
-- the services adds one, and can neither change nor remove it.
create table headgate.closed_month (
  month text primary key check (month ~ '^20[0-9]{2}-(0[1-9]|1[0-2])$'),
  begin_at timestamptz not null,
  end_at timestamptz not null check (end_at > begin_at),
  closed_at timestamptz not null,
  closed_by uuid not null references headgate.person,
  checksum bytea not null check (checksum = sha256(document)),
  document bytea not null,
  exclude using gist (tstzrange(begin_at, end_at) with &&)
);

grant select, insert on headgate.closed_month to headgate_application;
