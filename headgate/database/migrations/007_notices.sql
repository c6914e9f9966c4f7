-- oldest-program: 1

-- The tenants whose limits for each user, key or model have notices. Only their records are noted
-- below. The services write it, as their policy says.
create table headgate.notified_tenant (tenant text primary key);

-- Whom records have met since the last look at counters: written with the records, taken by a look.
create table headgate.met_subject (
  id bigint generated always as identity primary key,
  tenant text not null,
  person_id uuid,
  key text,
  model text
);

-- A threshold that was passed, once for each limit, counter, window and threshold; or a digest.
-- `id` is the idempotency key of its receivers. Amounts are in what the limit counts, cost in nanos.
create table headgate.notice (
  id uuid primary key default gen_random_uuid(),
  decided_at timestamptz not null default now(),
  tenant text not null,
  limit_id text not null,
  most bigint not null,
  threshold text not null,
  person_id uuid,
  key text not null default '',
  model text not null default '',
  count text not null,
  per text not null,
  begin_at timestamptz not null,
  end_at timestamptz not null,
  used bigint not null,
  forecast bigint,
  currency text,
  digest jsonb
);
create unique index notice_once on headgate.notice (tenant, limit_id, most, threshold,
  coalesce(person_id, '00000000-0000-0000-0000-000000000000'), key, model, begin_at);
create index notice_time on headgate.notice (decided_at, id);
create index notice_tenant on headgate.notice (tenant, decided_at, id);

-- A notice on its way. `next_at` is the time of the database, which all replicas share.
create table headgate.notice_delivery (
  notice_id uuid not null references headgate.notice on delete cascade,
  channel text not null check (channel in ('webhook', 'slack', 'mail')),
  attempts integer not null default 0,
  tried_at timestamptz,
  next_at timestamptz not null default now(),
  sent_at timestamptz,
  given_up_at timestamptz,
  last_error text,
  primary key (notice_id, channel)
);
create index notice_delivery_due on headgate.notice_delivery (next_at)
  where sent_at is null and given_up_at is null;

grant select, insert, delete on headgate.notified_tenant, headgate.met_subject
  to headgate_application;
grant select, insert, update (digest) on headgate.notice to headgate_application;
grant select, insert, update (attempts, tried_at, next_at, sent_at, given_up_at, last_error)
  on headgate.notice_delivery to headgate_application;
