-- oldest-program: 1

-- The prices that a price version stands for. A version is named after its content, so a row never
-- changes. Prices are decimal text by kind: of a million tokens, of an audio second, of a request.
create table headgate.price (
  version text primary key,
  valid_from timestamptz,
  currency text,
  prices jsonb not null
);

-- The labels of keys, as they were when a record was added.
create table headgate.label_set (
  id integer generated always as identity primary key,
  labels jsonb not null unique
);

-- Where records came from: a stream of a spool, or one run of an import. Its position moves in the
-- transaction that adds its records: a segment and a byte of it, or a file and a line of it.
create table headgate.ingest (
  id integer generated always as identity primary key,
  kind text not null check (kind in ('spool', 'import')),
  name text not null,
  segment bigint not null default 0,
  position bigint not null default 0,
  added bigint not null default 0,
  repeated bigint not null default 0,
  bad bigint not null default 0,
  first_at timestamptz not null default now(),
  last_at timestamptz not null default now()
);
create unique index ingest_stream on headgate.ingest (name) where kind = 'spool';

-- One row for each finished request. Months are partitions, by the end of the request in UTC.
-- `person_id` has no foreign key: no row of person is ever deleted, and each check costs time.
create table headgate.usage_record (
  ended_at timestamptz not null,
  started_at timestamptz not null,
  prompt_tokens bigint,
  cached_tokens bigint,
  completion_tokens bigint,
  reasoning_tokens bigint,
  audio_seconds bigint,
  estimated_tokens bigint,
  estimated_prompt_tokens bigint,
  cost_nanos bigint check (cost_nanos >= 0),
  max_tokens bigint,
  request_header_bytes bigint,
  request_bytes bigint,
  response_header_bytes bigint,
  response_bytes bigint,
  to_upstream_us bigint,
  upstream_first_byte_us bigint,
  ttft_us bigint,
  token_interval_us bigint,
  duration_us bigint not null,
  person_id uuid,
  ingest_id integer not null,
  label_set_id integer,
  status integer,
  upstream_status integer,
  choices bigint,
  attempts integer,
  schema smallint not null,
  stream boolean,
  ip inet,
  request_id text not null,
  tenant text,
  key text,
  api text,
  model text,
  base text,
  adapter text,
  version text,
  requested_model text,
  ended text,
  source text,
  "limit" text,
  price_version text,
  reservation text,
  trace_id text,
  method text,
  path text,
  pod text,
  replica text,
  details text,
  user_agent text,
  flags text[] not null,
  primary key (request_id, ended_at)
) partition by range (ended_at);

-- A search has one of these and follows the time backwards. Of equal times it sorts by request id.
create index usage_record_time on headgate.usage_record (ended_at);
create index usage_record_tenant on headgate.usage_record (tenant, ended_at);
create index usage_record_person on headgate.usage_record (person_id, ended_at);
create index usage_record_key on headgate.usage_record (key, ended_at);
create index usage_record_model on headgate.usage_record (model, ended_at);
create index usage_record_ip on headgate.usage_record (ip, ended_at);
create index usage_record_status on headgate.usage_record (status, ended_at)
  where status is null or status >= 400;
create index usage_record_limit on headgate.usage_record ("limit", ended_at)
  where "limit" is not null;

-- The role that adds records owns no table, so it adds months by this function.
create function headgate.ensure_usage_month(month date) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  name text := 'usage_record_' || to_char(month, 'YYYY_MM');
  first text := to_char(month, 'YYYY-MM') || '-01 00:00:00+00';
  next text := to_char(month + interval '1 month', 'YYYY-MM') || '-01 00:00:00+00';
begin
  if month < date '2000-01-01' or month >= date '2100-01-01' then
    raise exception 'no month between 2000 and 2099: %', month;
  end if;
  if exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'headgate' and c.relname = name) then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtext('headgate.ensure_usage_month'));
  -- A lock of this kind leaves the cache of to_regclass as it is: a query sees what is there now.
  if not exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'headgate' and c.relname = name) then
    execute format('create table headgate.%I (like headgate.usage_record including all)', name);
    execute format('alter table headgate.usage_record attach partition headgate.%I'
      ' for values from (%L) to (%L)', name, first, next);
  end if;
end
$$;
revoke all on function headgate.ensure_usage_month(date) from public;

-- What reports and searches read: a record with the name of its user and the labels of its key.
create view headgate.usage_line as
select r.*, p.name as "user", s.labels
from headgate.usage_record r
left join headgate.person p on p.id = r.person_id
left join headgate.label_set s on s.id = r.label_set_id;

grant execute on function headgate.ensure_usage_month(date) to headgate_application;
grant select, insert on headgate.price, headgate.label_set, headgate.usage_record
  to headgate_application;
grant select, insert, update (segment, position, added, repeated, bad, last_at)
  on headgate.ingest to headgate_application;
grant select on headgate.usage_line to headgate_application;
